// The selective scan for GPUs: an invocation for each channel, sequence *and* chunk, where scan.wgsl has one for each channel and
// sequence alone, far fewer than a GPU takes. h[t] is linear in the state before its chunk, so three steps make the states
// at which chunks start (Blelloch, "Prefix sums and their applications", 1990, section 1.4): what each chunk makes of a state of zeros,
// all at once; a chain through the chunks, which reads and writes one state a chunk; the chunks themselves, all at once. The
// backward runs the same steps from the end over g, the gradient with respect to h. Formulas: scan.wgsl, scan_backward.wgsl.
// Not timed on a GPU yet.

#include "scan_problem"
#include "scan_place"

const WORKGROUP = 64u;
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
alias T9 = f32;

@group(0) @binding(1) var<storage, read_write> ends: array<vec4f>; // [sequences, chunks, VECTORS, channels]
@group(0) @binding(2) var<storage, read_write> spans: array<f32>; // [sequences, chunks, channels], each the sum of its dt
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> dt_raw: array<T4>;
@group(0) @binding(5) var<storage, read> projection: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> constants: array<vec4f>; // as scan.wgsl prepares them

// What a chunk makes of a state of zeros.
@compute @workgroup_size(WORKGROUP)
fn alone(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.span * p.channels) { return; }
  let place = placeOf(lane);
  let own = place.channel * (VECTORS + 1u);
  let bias = constants[own + VECTORS].y;
  var h: array<vec4f, VECTORS>;
  var sum = 0.0;
  for (var t = 0u; t < place.count; t++) {
    let row = place.first + t;
    let dt = softplus(f32(dt_raw[row * p.channels + place.channel]) + bias).x;
    let scaled = dt * f32(x[row * p.channels + place.channel]);
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    for (var v = 0u; v < VECTORS; v++) {
      h[v] = exp2(dt * constants[own + v]) * h[v] + scaled * vec4f(projection[b + v]);
    }
    sum += dt;
  }
  for (var v = 0u; v < VECTORS; v++) { ends[place.state + v * p.channels] = h[v]; }
  spans[place.step] = sum;
}

@group(0) @binding(3) var<storage, read> constants_in: array<vec4f>;

// From what chunks make of zeros to the states at which they start. One invocation a channel, sequence and vector.
@compute @workgroup_size(WORKGROUP)
fn chain(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  let width = VECTORS * p.channels;
  if (lane >= p.sequences * width) { return; }
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  let channel = lane % p.channels;
  let a = constants_in[channel * (VECTORS + 1u) + lane % width / p.channels];
  var h = vec4f();
  for (var chunk = 0u; chunk < chunks; chunk++) {
    let index = lane / width * chunks + chunk;
    let at = index * width + lane % width;
    let end = ends[at];
    ends[at] = h;
    h = exp2(a * spans[index * p.channels + channel]) * h + end;
  }
}

// The same from the last chunk to the first, for exp(dt A) g of the token behind each.
@compute @workgroup_size(WORKGROUP)
fn chain_back(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  let width = VECTORS * p.channels;
  if (lane >= p.sequences * width) { return; }
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  let channel = lane % p.channels;
  let a = constants_in[channel * (VECTORS + 1u) + lane % width / p.channels];
  var carry = vec4f();
  for (var chunk = chunks; chunk > 0u;) {
    chunk--;
    let index = lane / width * chunks + chunk;
    let at = index * width + lane % width;
    let start = ends[at];
    ends[at] = carry;
    carry = exp2(a * spans[index * p.channels + channel]) * carry + start;
  }
}

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> starts: array<vec4f>;
@group(0) @binding(7) var<storage, read> gate_in: array<T7>;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.span * p.channels) { return; }
  let place = placeOf(lane);
  let own = place.channel * (VECTORS + 1u);
  let rest = constants[own + VECTORS];
  var h: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) { h[v] = starts[place.state + v * p.channels]; }
  for (var t = 0u; t < place.count; t++) {
    let row = place.first + t;
    let at = row * p.channels + place.channel;
    let value = f32(x[at]);
    let dt = softplus(f32(dt_raw[at]) + rest.y).x;
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    var sums = vec4f();
    for (var v = 0u; v < VECTORS; v++) {
      h[v] = exp2(dt * constants[own + v]) * h[v] + dt * value * vec4f(projection[b + v]);
      sums += h[v] * vec4f(projection[b + VECTORS + v]);
    }
    let result = dot(sums, vec4f(1.0)) + rest.x * value;
    let z = f32(gate_in[(row + 1u) * p.gateStride - p.channels + place.channel]);
    y[at] = T1(result * z / (1.0 + exp(-z)));
  }
}

@group(0) @binding(3) var<storage, read> dout: array<T3>;

// What a chunk makes of a g of zeros behind it: the sum of C y' over its tokens, each decayed through all before it and itself.
@compute @workgroup_size(WORKGROUP)
fn alone_back(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.span * p.channels) { return; }
  let place = placeOf(lane);
  let own = place.channel * (VECTORS + 1u);
  let bias = constants[own + VECTORS].y;
  var carry: array<vec4f, VECTORS>;
  var sum = 0.0;
  for (var t = 0u; t < place.count; t++) {
    let row = place.first + t;
    let at = row * p.channels + place.channel;
    sum += softplus(f32(dt_raw[at]) + bias).x;
    let z = f32(gate_in[(row + 1u) * p.gateStride - p.channels + place.channel]);
    let dy = f32(dout[at]) * z / (1.0 + exp(-z));
    let c = (row + 1u) * p.projectionStride - VECTORS;
    for (var v = 0u; v < VECTORS; v++) { carry[v] += exp2(sum * constants[own + v]) * dy * vec4f(projection[c + v]); }
  }
  for (var v = 0u; v < VECTORS; v++) { ends[place.state + v * p.channels] = carry[v]; }
  spans[place.step] = sum;
}

@group(0) @binding(1) var<storage, read_write> out: array<T1>; // out' becomes x'
@group(0) @binding(2) var<storage, read_write> dt_to: array<T2>; // dt_raw becomes dt_raw'
@group(0) @binding(3) var<storage, read_write> gate: array<T3>; // z becomes z'
@group(0) @binding(4) var<storage, read> kept: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>; // [sequences, channels, span * CHUNK, 2 VECTORS]: B', C'
@group(0) @binding(6) var<storage, read_write> parts: array<vec4f>; // [sequences, chunks, channels, VECTORS + 1]: of `sums`
@group(0) @binding(6) var<storage, read_write> left: array<T6>; // [sequences * length, 2 channels]: dt_raw', y'
@group(0) @binding(7) var<storage, read> constants_of: array<vec4f>;
@group(0) @binding(8) var<storage, read> x_of: array<T8>;
@group(0) @binding(9) var<storage, read> projection_of: array<vec4<T9>>;
@group(0) @binding(10) var<storage, read> carries: array<vec4f>;

#each "scan_sums_in_i" "scan_sums_in_w"
@compute @workgroup_size(WORKGROUP)
fn backward${_left}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.span * p.channels) { return; }
  let place = placeOf(lane);
  let own = place.channel * (VECTORS + 1u);
  let rest = constants_of[own + VECTORS];
  var a: array<vec4f, VECTORS>;
  var h: array<vec4f, VECTORS>;
  var carry: array<vec4f, VECTORS>;
  ${sum(var da: array<vec4f, VECTORS>;)}
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = constants_of[own + v];
    h[v] = kept[place.state + v * p.channels];
    carry[v] = carries[place.state + v * p.channels];
  }
  var before: array<vec4f, CHUNK * VECTORS>; // h[t - 1]
  for (var t = 0u; t < place.count; t++) {
    let row = place.first + t;
    let at = row * p.channels + place.channel;
    let dt = softplus(f32(dt_to[at]) + rest.y).x;
    let scaled = dt * f32(x_of[at]);
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    for (var v = 0u; v < VECTORS; v++) {
      before[t * VECTORS + v] = h[v];
      h[v] = exp2(dt * a[v]) * h[v] + scaled * vec4f(projection_of[b + v]);
    }
  }

  let sequence = lane / p.channels / p.span;
  let partial = ((sequence * p.channels + place.channel) * p.span + place.chunk - p.chunk) * CHUNK;
  ${sum(var d_sum = 0.0;)}
  ${sum(var bias_sum = 0.0;)}
  for (var t = place.count; t > 0u;) {
    t--;
    let row = place.first + t;
    let at = row * p.channels + place.channel;
    let value = f32(x_of[at]);
    let dt = softplus(f32(dt_to[at]) + rest.y);
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    let z_at = (row + 1u) * p.gateStride - p.channels + place.channel;
    let z = f32(gate[z_at]);
    let sigmoid = 1.0 / (1.0 + exp(-z));
    let gradient = f32(out[at]);
    let dy = gradient * z * sigmoid;
    let to = (partial + t) * 2u * VECTORS;
    var y4 = vec4f();
    var bg4 = vec4f();
    var au4 = vec4f();
    for (var v = 0u; v < VECTORS; v++) {
      let input = vec4f(projection_of[b + v]);
      let output = vec4f(projection_of[b + VECTORS + v]);
      let decay = exp2(dt.x * a[v]);
      let decayed = decay * before[t * VECTORS + v];
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
    let result = dot(y4, vec4f(1.0)) + rest.x * value;
    let bg = dot(bg4, vec4f(1.0));
    gate[z_at] = T3(gradient * result * sigmoid * (1.0 + z * (1.0 - sigmoid)));
    out[at] = T1(rest.x * dy + dt.x * bg);
    let ddt = (value * bg + LN2 * dot(au4, vec4f(1.0))) * dt.y;
    ${sum(dt_to[at] = T2(ddt);)}
    ${sum(d_sum += dy * value;)}
    ${sum(bias_sum += ddt;)}
    ${leave(left[at + row * p.channels] = T6(ddt);)}
    ${leave(left[at + (row + 1u) * p.channels] = T6(dy);)}
  }
  ${sum(store_parts(place.step * (VECTORS + 1u), a, da, d_sum, bias_sum);)}
}
#end

fn store_parts(at: u32, a: array<vec4f, VECTORS>, da: array<vec4f, VECTORS>, d_sum: f32, bias_sum: f32) {
  for (var v = 0u; v < VECTORS; v++) { parts[at + v] = LN2 * a[v] * da[v]; }
  parts[at + VECTORS] = vec4f(d_sum, bias_sum, 0.0, 0.0);
}

@group(0) @binding(1) var<storage, read_write> sums: array<vec4f>; // [sequences, channels, VECTORS + 1]
@group(0) @binding(2) var<storage, read> parts_in: array<vec4f>;

// The sums of a sequence's chunks, in their order.
@compute @workgroup_size(WORKGROUP)
fn add_up(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  let width = p.channels * (VECTORS + 1u);
  if (lane >= p.sequences * width) { return; }
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  var sum = vec4f();
  for (var chunk = 0u; chunk < chunks; chunk++) {
    sum += parts_in[(lane / width * chunks + chunk) * width + lane % width];
  }
  sums[lane] = sum;
}

