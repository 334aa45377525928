// The selective scan's backward, some chunks of every sequence a dispatch, from the last chunk to the first. The states of a
// chunk are recomputed from the one kept before it. With g[t] the gradient with respect to h[t], y' and dt' those with respect
// to y and dt, and [n] running over the state:
//   y' = out' silu(z),  z' = out' y silu'(z),  g[t] = C[t] y' + exp(dt[t+1] A) g[t+1],
//   C' = sum over channels of y' h[t],  B' = sum over channels of dt x g[t],  x' = D y' + dt (B . g),
//   u = g[t] exp(dt A) h[t-1],  dt' = x (B . g) + A . u,  A' = sum over t of dt u,  A_log' = A A',  D' = sum of y' x,
//   dt_raw' = dt' sigmoid(dt_raw + bias),  bias' = sum of dt_raw'
// A_log', D' and bias' are for W alone. `backward` adds them up as it goes; `backward_left` makes none, and leaves dt_raw as it is
// and dt_raw' and y' in a buffer of their own, from which scan_sums.wgsl makes them in W.

#include "scan_problem"
#include "scan_store_sums"

const WORKGROUP = 64u;
const VECTORS = 4u;
const CHUNK = 16u;

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T6 = f32;
alias T7 = f32;
alias T8 = f32;

@group(0) @binding(1) var<storage, read_write> out: array<T1>; // out' becomes x'
@group(0) @binding(2) var<storage, read_write> dt_raw: array<T2>; // becomes dt_raw'
@group(0) @binding(3) var<storage, read_write> gate: array<T3>; // z becomes z'
@group(0) @binding(4) var<storage, read_write> states: array<vec4f>; // h before the chunk becomes exp(dt A) g of its first token
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>; // [sequences, channels, span * CHUNK, 2 VECTORS]: B', C'
@group(0) @binding(6) var<storage, read_write> sums: array<vec4f>; // [sequences, channels, VECTORS + 1]: A_log'; D', bias'
@group(0) @binding(6) var<storage, read_write> left: array<T6>; // [sequences * length, 2 channels]: dt_raw', y'
@group(0) @binding(7) var<storage, read> x: array<T7>;
@group(0) @binding(8) var<storage, read> projection: array<vec4<T8>>;
@group(0) @binding(9) var<storage, read> constants: array<vec4f>;

// One invocation a channel and sequence. What B' and C' sum over the channels goes through memory: invocations
// that took several channels and kept these sums in private arrays were no faster and took three times as long to compile.
#each "scan_sums_in_i" "scan_sums_in_w"
@compute @workgroup_size(WORKGROUP)
fn backward${_left}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.channels) { return; }
  let channel = lane % p.channels;
  let sequence = lane / p.channels;
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
      let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
      for (var v = 0u; v < VECTORS; v++) {
        before[t * VECTORS + v] = h[v];
        h[v] = exp2(dt * a[v]) * h[v] + scaled * vec4f(projection[b + v]);
      }
    }

    for (var t = count; t > 0u;) {
      t--;
      let row = first + t;
      let at = row * p.channels + channel;
      let value = f32(x[at]);
      let dt = softplus(f32(dt_raw[at]) + rest.y);
      let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
      let z_at = (row + 1u) * p.gateStride - p.channels + channel;
      let z = f32(gate[z_at]);
      let sigmoid = 1.0 / (1.0 + exp(-z));
      let dout = f32(out[at]);
      let dy = dout * z * sigmoid;
      let to = (lane * p.span * CHUNK + start - p.chunk * CHUNK + t) * 2u * VECTORS;
      var y4 = vec4f();
      var bg4 = vec4f();
      var au4 = vec4f();
      for (var v = 0u; v < VECTORS; v++) {
        let i = t * VECTORS + v;
        let input = vec4f(projection[b + v]);
        let output = vec4f(projection[b + VECTORS + v]);
        let decay = exp2(dt.x * a[v]);
        let decayed = decay * before[i];
        let state = decayed + dt.x * value * input;
        let g = output * dy + carry[v];
        y4 += output * state;
        partials[to + VECTORS + v] = dy * state;
        partials[to + v] = dt.x * value * g;
        bg4 += input * g;
        let u = g * decayed;
        au4 += a[v] * u;
        ${sum(da[v] += dt.x * u;)}
        carry[v] = decay * g;
      }
      let y = dot(y4, vec4f(1.0)) + rest.x * value;
      let bg = dot(bg4, vec4f(1.0));
      gate[z_at] = T3(dout * y * sigmoid * (1.0 + z * (1.0 - sigmoid)));
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
  ${sum(store_sums(lane * (VECTORS + 1u), last, a, da, d_sum, bias_sum);)}
}
#end

@group(0) @binding(1) var<storage, read_write> dprojection: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> partials_in: array<vec4f>;

// B' and C' of the chunk's tokens: the channels' parts, added up in their order. One invocation a token and vec4.
@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  let count = min(p.span * CHUNK, p.length - p.chunk * CHUNK);
  let width = 2u * VECTORS;
  if (lane >= p.sequences * count * width) { return; }
  let column = lane % width;
  let t = lane / width % count;
  let sequence = lane / width / count;
  var sum = vec4f();
  for (var i = sequence * p.channels; i < (sequence + 1u) * p.channels; i++) {
    sum += partials_in[(i * p.span * CHUNK + t) * width + column];
  }
  let row = sequence * p.length + p.chunk * CHUNK + t;
  dprojection[(row + 1u) * p.projectionStride - width + column] = vec4<T1>(sum);
}

const GROUP = 64u;

var<workgroup> shared_sums: array<vec4f, GROUP>;

// The same for a GPU: a workgroup a token, whose invocations share the channels.
@compute @workgroup_size(GROUP)
fn gather_group(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let token = group.x + group.y * n.x;
  let count = min(p.span * CHUNK, p.length - p.chunk * CHUNK);
  if (token >= p.sequences * count) { return; }
  let width = 2u * VECTORS;
  let parts = GROUP / width;
  let t = token % count;
  let sequence = token / count;
  let column = lane % width;
  var sum = vec4f();
  if (lane < parts * width) {
    for (var i = lane / width; i < p.channels; i += parts) {
      sum += partials_in[((sequence * p.channels + i) * p.span * CHUNK + t) * width + column];
    }
  }
  shared_sums[lane] = sum;
  workgroupBarrier();
  if (lane >= width) { return; }
  for (var part = 1u; part < parts; part++) { sum += shared_sums[part * width + lane]; }
  let row = sequence * p.length + p.chunk * CHUNK + t;
  dprojection[(row + 1u) * p.projectionStride - width + lane] = vec4<T1>(sum);
}

@group(0) @binding(1) var<storage, read_write> da_log: array<vec4<T1>>; // [channels, VECTORS]
@group(0) @binding(2) var<storage, read_write> dd: array<T2>; // [channels]
@group(0) @binding(3) var<storage, read_write> dbias: array<T3>; // [channels]
@group(0) @binding(4) var<storage, read> sums_in: array<vec4f>;

// The sums of any number of sequences, added to the gradients. One invocation a channel and vec4.
@compute @workgroup_size(WORKGROUP)
fn backward_weight(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  let width = p.channels * (VECTORS + 1u);
  if (lane >= width) { return; }
  let channel = lane / (VECTORS + 1u);
  let v = lane % (VECTORS + 1u);
  var sum = vec4f();
  for (var sequence = 0u; sequence < p.sequences; sequence++) { sum += sums_in[sequence * width + lane]; }
  if (v < VECTORS) {
    let i = channel * VECTORS + v;
    da_log[i] = vec4<T1>(vec4f(da_log[i]) + sum);
  } else {
    dd[channel] = T2(f32(dd[channel]) + sum.x);
    dbias[channel] = T3(f32(dbias[channel]) + sum.y);
  }
}
