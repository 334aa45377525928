// What W of a selective scan adds up where I has left it to W (scan_backward.wgsl has the formulas): A_log', D' and bias' of each
// sequence. A is diagonal, so that A' needs no second run from the end: with s[t] = dh[t] / dA, number by number,
//   s[t] = exp(dt A) (s[t-1] + dt h[t-1]),  A' = sum over t of y' C[t] s[t],  A_log' = A A',
// and s goes along with h from the first token on. No states need to be kept for it, only dt_raw, dt_raw' and y'.

#include "scan_problem"

const WORKGROUP = 64u;
const VECTORS = 4u;

alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;

@group(0) @binding(1) var<storage, read_write> sums: array<vec4f>; // [sequences, channels, VECTORS + 1]: A_log'; D', bias'
@group(0) @binding(2) var<storage, read> left: array<T2>; // [sequences * length, 2 channels]: dt_raw', y'
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> dt_raw: array<T4>;
@group(0) @binding(5) var<storage, read> projection: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> constants: array<vec4f>;

// One invocation a channel and sequence.
@compute @workgroup_size(WORKGROUP)
fn sums_of(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.channels) { return; }
  let channel = lane % p.channels;
  let own = channel * (VECTORS + 1u);
  var a: array<vec4f, VECTORS>;
  var h: array<vec4f, VECTORS>;
  var slope: array<vec4f, VECTORS>;
  var da: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = constants[own + v];
    h[v] = vec4f();
    slope[v] = vec4f();
    da[v] = vec4f();
  }
  let bias = constants[own + VECTORS].y;
  var d_sum = 0.0;
  var bias_sum = 0.0;
  let first = lane / p.channels * p.length;
  for (var row = first; row < first + p.length; row++) {
    let at = row * p.channels + channel;
    let value = f32(x[at]);
    let dt = softplus(f32(dt_raw[at]) + bias).x;
    let ddt = f32(left[at + row * p.channels]);
    let dy = f32(left[at + (row + 1u) * p.channels]);
    let b = (row + 1u) * p.projectionStride - 2u * VECTORS;
    for (var v = 0u; v < VECTORS; v++) {
      let decay = exp2(dt * a[v]);
      slope[v] = decay * (slope[v] + dt * h[v]);
      h[v] = decay * h[v] + dt * value * vec4f(projection[b + v]);
      da[v] += dy * vec4f(projection[b + VECTORS + v]) * slope[v];
    }
    d_sum += dy * value;
    bias_sum += ddt;
  }
  for (var v = 0u; v < VECTORS; v++) { sums[lane * (VECTORS + 1u) + v] = LN2 * a[v] * da[v]; }
  sums[lane * (VECTORS + 1u) + VECTORS] = vec4f(d_sum, bias_sum, 0.0, 0.0);
}
