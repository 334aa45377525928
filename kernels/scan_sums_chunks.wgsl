// What W of a selective scan adds up (scan_sums.wgsl has the formulas) for GPUs: an invocation for each channel, sequence *and* chunk.
// The states h at which chunks start come from `alone` and `chain` of scan_chunks.wgsl. The slopes s = dh / dA then follow the same
// recurrence: what each chunk makes of slopes of zeros, which `chain` makes into those at which chunks start; and the chunks
// themselves, all at once. Not timed on a GPU yet.

#include "scan_problem"
#include "scan_place"

const WORKGROUP = 64u;
const VECTORS = 4u;
const CHUNK = 16u;

alias T3 = f32;
alias T4 = f32;
alias T5 = f32;
alias T8 = f32;

@group(0) @binding(1) var<storage, read_write> ends: array<vec4f>; // [sequences, chunks, VECTORS, channels]: s
@group(0) @binding(2) var<storage, read> starts: array<vec4f>; // the same of h
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> dt_raw: array<T4>;
@group(0) @binding(5) var<storage, read> projection: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> constants: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn alone(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.span * p.channels) { return; }
  let place = placeOf(lane);
  let own = place.channel * (VECTORS + 1u);
  let bias = constants[own + VECTORS].y;
  var h: array<vec4f, VECTORS>;
  var slope: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) { h[v] = starts[place.state + v * p.channels]; }
  for (var t = 0u; t < place.count; t++) {
    let row = place.first + t;
    let at = row * p.channels + place.channel;
    let dt = softplus(f32(dt_raw[at]) + bias).x;
    let scaled = dt * f32(x[at]);
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    for (var v = 0u; v < VECTORS; v++) {
      let decay = exp2(dt * constants[own + v]);
      slope[v] = decay * (slope[v] + dt * h[v]);
      h[v] = decay * h[v] + scaled * vec4f(projection[b + v]);
    }
  }
  for (var v = 0u; v < VECTORS; v++) { ends[place.state + v * p.channels] = slope[v]; }
}

@group(0) @binding(1) var<storage, read_write> parts: array<vec4f>; // [sequences, chunks, channels, VECTORS + 1]: of the sums
@group(0) @binding(7) var<storage, read> slopes: array<vec4f>; // at which chunks start
@group(0) @binding(8) var<storage, read> left: array<T8>; // [sequences * length, 2 channels]: dt_raw', y'

@compute @workgroup_size(WORKGROUP)
fn parts_of(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.span * p.channels) { return; }
  let place = placeOf(lane);
  let own = place.channel * (VECTORS + 1u);
  let bias = constants[own + VECTORS].y;
  var h: array<vec4f, VECTORS>;
  var slope: array<vec4f, VECTORS>;
  var da: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) {
    h[v] = starts[place.state + v * p.channels];
    slope[v] = slopes[place.state + v * p.channels];
  }
  var d_sum = 0.0;
  var bias_sum = 0.0;
  for (var t = 0u; t < place.count; t++) {
    let row = place.first + t;
    let at = row * p.channels + place.channel;
    let value = f32(x[at]);
    let dt = softplus(f32(dt_raw[at]) + bias).x;
    let dy = f32(left[at + (row + 1u) * p.channels]);
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    for (var v = 0u; v < VECTORS; v++) {
      let decay = exp2(dt * constants[own + v]);
      slope[v] = decay * (slope[v] + dt * h[v]);
      h[v] = decay * h[v] + dt * value * vec4f(projection[b + v]);
      da[v] += dy * vec4f(projection[b + VECTORS + v]) * slope[v];
    }
    d_sum += dy * value;
    bias_sum += f32(left[at + row * p.channels]);
  }
  let parts_at = place.step * (VECTORS + 1u);
  for (var v = 0u; v < VECTORS; v++) { parts[parts_at + v] = LN2 * constants[own + v] * da[v]; }
  parts[parts_at + VECTORS] = vec4f(d_sum, bias_sum, 0.0, 0.0);
}
