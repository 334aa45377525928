// The selective scan and its backward (scan.wgsl and scan_backward.wgsl have the formulas) for processors that pose as GPUs and
// have subgroups. There a load or store costs as much as twenty multiplications, and three quarters of the plain kernels' time
// went into loading B and C, which all channels share, and into storing what B' and C' sum over the channels. Here a workgroup is
// one subgroup on neighbouring channels of one sequence: its lanes load a token's B and C between them and broadcast them,
// and four lanes add up their parts of B' and C' before they store them.
// Needs a state of 16 numbers at most, and channels that divide by LANES.
enable subgroups;

#include "scan_problem"
#include "scan_store_sums"

const LANES = 8u; // in a subgroup: 4, 8 or 16
const VECTORS = 4u;
const CHUNK = 16u;

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;
alias T6 = f32;
alias T7 = f32;
alias T8 = f32;

// B, then C, of a token.
alias Shared = array<vec4f, 8>;
// What a lane loads of them.
alias Share = array<vec4f, (8u + LANES - 1u) / LANES>;

fn everything(x: Share) -> Shared {
  return Shared(
    #repeat r 0 8
      subgroupBroadcast(x[${r}u / LANES], ${r}u % LANES),
    #end
  );
}

@group(0) @binding(1) var<storage, read_write> y: array<T1>; // [sequences * length, channels]
@group(0) @binding(2) var<storage, read_write> kept: array<vec4f>; // [sequences, chunks, VECTORS, channels]
@group(0) @binding(3) var<storage, read> x_in: array<T3>;
@group(0) @binding(4) var<storage, read> dt_in: array<T4>;
@group(0) @binding(5) var<storage, read> projection_in: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> gate_in: array<T6>;
@group(0) @binding(7) var<storage, read> constants_in: array<vec4f>;

@compute @workgroup_size(LANES)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.x + group.y * n.x) * LANES;
  if (first >= p.sequences * p.channels) { return; }
  let channel = first % p.channels + lane;
  let sequence = first / p.channels;
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  var a: array<vec4f, VECTORS>;
  var h: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = constants_in[channel * (VECTORS + 1u) + v];
    h[v] = vec4f();
  }
  let rest = constants_in[channel * (VECTORS + 1u) + VECTORS];
  for (var t = 0u; t < p.length; t++) {
    if (t % CHUNK == 0u) {
      let at = (sequence * chunks + t / CHUNK) * VECTORS;
      for (var v = 0u; v < VECTORS; v++) { kept[(at + v) * p.channels + channel] = h[v]; }
    }
    let row = sequence * p.length + t;
    let value = f32(x_in[row * p.channels + channel]);
    let dt = softplus(f32(dt_in[row * p.channels + channel]) + rest.y).x;
    let bc_at = (row + 1u) * p.projectionStride - 2u * VECTORS;
    var share: Share;
    for (var i = 0u; i * LANES < 8u; i++) {
      share[i] = vec4f(projection_in[bc_at + min(i * LANES + lane, 2u * VECTORS - 1u)]);
    }
    let bc = everything(share);
    var sums = vec4f();
    for (var v = 0u; v < VECTORS; v++) {
      h[v] = exp2(dt * a[v]) * h[v] + dt * value * bc[v];
      sums += h[v] * bc[VECTORS + v];
    }
    let result = dot(sums, vec4f(1.0)) + rest.x * value;
    let z = f32(gate_in[(row + 1u) * p.gateStride - p.channels + channel]);
    y[row * p.channels + channel] = T1(result * z / (1.0 + exp(-z)));
  }
}

@group(0) @binding(1) var<storage, read_write> out: array<T1>; // out' becomes x'
@group(0) @binding(2) var<storage, read_write> dt_raw: array<T2>; // becomes dt_raw'
@group(0) @binding(3) var<storage, read_write> gate: array<T3>; // z becomes z'
@group(0) @binding(4) var<storage, read_write> states: array<vec4f>; // h before the chunk becomes exp(dt A) g of its first token
@group(0) @binding(5) var<storage, read_write> partials: array<f32>; // [sequences, channels / 4, span * CHUNK, 2 VECTORS, 4]: B', C'
@group(0) @binding(6) var<storage, read_write> sums: array<vec4f>; // [sequences, channels, VECTORS + 1]: A_log'; D', bias'
@group(0) @binding(6) var<storage, read_write> left: array<T6>; // [sequences * length, 2 channels]: dt_raw', y'
@group(0) @binding(7) var<storage, read> x: array<T7>;
@group(0) @binding(8) var<storage, read> projection: array<vec4<T8>>;
@group(0) @binding(9) var<storage, read> constants: array<vec4f>;

#each "scan_sums_in_i" "scan_sums_in_w"
@compute @workgroup_size(LANES)
fn backward${_left}(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let origin = (group.x + group.y * n.x) * LANES;
  if (origin >= p.sequences * p.channels) { return; }
  let channel = origin % p.channels + lane;
  let sequence = origin / p.channels;
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  let kept_at = (sequence * chunks + p.chunk) * VECTORS;
  let last = p.chunk + p.span == chunks;

  let own = channel * (VECTORS + 1u);
  var a: array<vec4f, VECTORS>;
  var carry: array<vec4f, VECTORS>;
  ${sum(var da: array<vec4f, VECTORS>;)}
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = constants[own + v];
    carry[v] = vec4f();
    if (!last) { carry[v] = states[(kept_at + p.span * VECTORS + v) * p.channels + channel]; }
    ${sum(da[v] = vec4f();)}
  }
  let rest = constants[own + VECTORS];
  ${sum(var d_sum = 0.0;)}
  ${sum(var bias_sum = 0.0;)}
  var before: array<vec4f, CHUNK * VECTORS>; // h[t - 1]
  for (var chunk = p.chunk + p.span; chunk > p.chunk;) {
    chunk--;
    let start = chunk * CHUNK;
    let count = min(CHUNK, p.length - start);
    let first = sequence * p.length + start;
    var h: array<vec4f, VECTORS>;
    for (var v = 0u; v < VECTORS; v++) {
      h[v] = states[((sequence * chunks + chunk) * VECTORS + v) * p.channels + channel];
    }
    for (var t = 0u; t < count; t++) {
      let row = first + t;
      let dt = softplus(f32(dt_raw[row * p.channels + channel]) + rest.y).x;
      let scaled = dt * f32(x[row * p.channels + channel]);
      let bc_at = (row + 1u) * p.projectionStride - 2u * VECTORS;
      var share: Share;
      for (var i = 0u; i * LANES < 8u; i++) {
        share[i] = vec4f(projection[bc_at + min(i * LANES + lane, 2u * VECTORS - 1u)]);
      }
      let bc = everything(share);
      for (var v = 0u; v < VECTORS; v++) {
        before[t * VECTORS + v] = h[v];
        h[v] = exp2(dt * a[v]) * h[v] + scaled * bc[v];
      }
    }

    for (var t = count; t > 0u;) {
      t--;
      let row = first + t;
      let at = row * p.channels + channel;
      let value = f32(x[at]);
      let dt = softplus(f32(dt_raw[at]) + rest.y);
      let bc_at = (row + 1u) * p.projectionStride - 2u * VECTORS;
      var share: Share;
      for (var i = 0u; i * LANES < 8u; i++) {
        share[i] = vec4f(projection[bc_at + min(i * LANES + lane, 2u * VECTORS - 1u)]);
      }
      let bc = everything(share);
      let z_at = (row + 1u) * p.gateStride - p.channels + channel;
      let z = f32(gate[z_at]);
      let sigmoid = 1.0 / (1.0 + exp(-z));
      let dout = f32(out[at]);
      let dy = dout * z * sigmoid;
      let to = ((origin + lane) / 4u * p.span * CHUNK + start - p.chunk * CHUNK + t) * 8u * VECTORS + lane % 4u;
      var y4 = vec4f();
      var bg4 = vec4f();
      var au4 = vec4f();
      for (var v = 0u; v < VECTORS; v++) {
        let input = bc[v];
        let output = bc[VECTORS + v];
        let decay = exp2(dt.x * a[v]);
        let decayed = decay * before[t * VECTORS + v];
        let state = decayed + dt.x * value * input;
        let g = output * dy + carry[v];
        y4 += output * state;
        partials[to + (VECTORS + v) * 4u] = inQuad(dy * state, lane);
        partials[to + v * 4u] = inQuad(dt.x * value * g, lane);
        bg4 += input * g;
        let u = g * decayed;
        au4 += a[v] * u;
        ${sum(da[v] += dt.x * u;)}
        carry[v] = decay * g;
      }
      let result = dot(y4, vec4f(1.0)) + rest.x * value;
      let bg = dot(bg4, vec4f(1.0));
      gate[z_at] = T3(dout * result * sigmoid * (1.0 + z * (1.0 - sigmoid)));
      out[at] = T1(rest.x * dy + dt.x * bg);
      let ddt = (value * bg + LN2 * dot(au4, vec4f(1.0))) * dt.y;
      ${sum(dt_raw[at] = T2(ddt);)}
      ${sum(d_sum += dy * value;)}
      ${sum(bias_sum += ddt;)}
      ${leave(left[at + row * p.channels] = T6(ddt);)}
      ${leave(left[at + (row + 1u) * p.channels] = T6(dy);)}
    }
  }

  for (var v = 0u; v < VECTORS; v++) { states[(kept_at + v) * p.channels + channel] = carry[v]; }
  ${sum(store_sums((origin + lane) * (VECTORS + 1u), last, a, da, d_sum, bias_sum);)}
}
#end

// The sum over four neighbouring lanes: the first of them is given its x, the second its y, and so on.
fn inQuad(value: vec4f, lane: u32) -> f32 {
  let odd = (lane & 1u) == 1u;
  let pair = select(value.xz, value.yw, odd) + quadSwapX(select(value.yw, value.xz, odd));
  let high = (lane & 2u) == 2u;
  return select(pair.x, pair.y, high) + quadSwapY(select(pair.y, pair.x, high));
}


@group(0) @binding(1) var<storage, read_write> sums_out: array<vec4f>; // [sequences, channels, VECTORS + 1]: A_log'; D', bias'
@group(0) @binding(2) var<storage, read> left_in: array<T2>; // [sequences * length, 2 channels]: dt_raw', y'
@group(0) @binding(6) var<storage, read> sums_constants: array<vec4f>;

// What W adds up where I has left it: scan_sums.wgsl has the formulas.
@compute @workgroup_size(LANES)
fn sums_of(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let origin = (group.x + group.y * n.x) * LANES;
  if (origin >= p.sequences * p.channels) { return; }
  let channel = origin % p.channels + lane;
  let own = channel * (VECTORS + 1u);
  var a: array<vec4f, VECTORS>;
  var h: array<vec4f, VECTORS>;
  var slope: array<vec4f, VECTORS>;
  var da: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = sums_constants[own + v];
    h[v] = vec4f();
    slope[v] = vec4f();
    da[v] = vec4f();
  }
  let bias = sums_constants[own + VECTORS].y;
  var d_sum = 0.0;
  var bias_sum = 0.0;
  let first = origin / p.channels * p.length;
  for (var row = first; row < first + p.length; row++) {
    let at = row * p.channels + channel;
    let value = f32(x_in[at]);
    let dt = softplus(f32(dt_in[at]) + bias).x;
    let ddt = f32(left_in[at + row * p.channels]);
    let dy = f32(left_in[at + (row + 1u) * p.channels]);
    let bc_at = (row + 1u) * p.projectionStride - 2u * VECTORS;
    var share: Share;
    for (var i = 0u; i * LANES < 8u; i++) {
      share[i] = vec4f(projection_in[bc_at + min(i * LANES + lane, 2u * VECTORS - 1u)]);
    }
    let bc = everything(share);
    for (var v = 0u; v < VECTORS; v++) {
      let decay = exp2(dt * a[v]);
      slope[v] = decay * (slope[v] + dt * h[v]);
      h[v] = decay * h[v] + dt * value * bc[v];
      da[v] += dy * bc[VECTORS + v] * slope[v];
    }
    d_sum += dy * value;
    bias_sum += ddt;
  }
  let sums_at = (origin + lane) * (VECTORS + 1u);
  for (var v = 0u; v < VECTORS; v++) { sums_out[sums_at + v] = LN2 * a[v] * da[v]; }
  sums_out[sums_at + VECTORS] = vec4f(d_sum, bias_sum, 0.0, 0.0);
}
