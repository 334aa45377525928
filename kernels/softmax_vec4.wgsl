// Softmax in place, one invocation a row, four elements a load; the length divides by 4. See softmax.wgsl.

#include "not_finite"

struct Parameters {
  rows: u32,
  length: u32, // rows of a matrix
  heads: u32, // matrices of a sequence
  causal: u32,
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> ends: array<u32>; // of each sequence: its valid positions

const WORKGROUP = 64u;
const LOWEST = -3.4e38;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row < p.rows) { softmax(row, p.length); }
}

@compute @workgroup_size(WORKGROUP)
fn forward_padded(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row < p.rows) { softmax(row, ends[sequence_of(row)]); }
}

fn sequence_of(row: u32) -> u32 { return row / (p.heads * p.length); }

// See softmax.wgsl.
fn seen_of(row: u32, valid: u32) -> u32 {
  return clamp(min(select(p.length, row % p.length + 1u, p.causal != 0u), valid), 1u, p.length);
}

fn softmax(row: u32, valid: u32) {
  let width = p.length / 4u;
  let start = row * width;
  let last = seen_of(row, valid) - 1u;
  let whole = last / 4u; // vec4s before the one that holds the last score
  let seen = vec4u(0, 1, 2, 3) <= vec4u(last % 4u);
  let edge = select(vec4f(LOWEST), vec4f(x[start + whole]), seen);
  var highest4 = edge;
  for (var i = 0u; i < whole; i++) { highest4 = max(highest4, vec4f(x[start + i])); }
  let highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w));
  let edge_value = select(vec4f(0), exp(edge - highest), seen);
  var sum = edge_value;
  for (var i = 0u; i < whole; i++) { sum += exp(vec4f(x[start + i]) - highest); }
  let total = dot(sum, vec4f(1));
  let factor = nan_unless(1.0 / total, is_finite(total)); // see softmax.wgsl
  // On a processor a store costs twice a load and an exp() together: better exp() again than to store in between.
  for (var i = 0u; i < whole; i++) {
    x[start + i] = vec4<T1>(exp(vec4f(x[start + i]) - highest) * factor);
  }
  x[start + whole] = vec4<T1>(select(vec4f(0), edge_value * factor, seen));
  for (var i = whole + 1u; i < width; i++) { x[start + i] = vec4<T1>(); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<vec4<T1>>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> ends_in: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row < p.rows) { softmax_backward(row, p.length); }
}

@compute @workgroup_size(WORKGROUP)
fn backward_padded(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row < p.rows) { softmax_backward(row, ends_in[sequence_of(row)]); }
}

fn softmax_backward(row: u32, valid: u32) {
  let width = p.length / 4u;
  let start = row * width;
  let last = seen_of(row, valid) - 1u;
  let whole = last / 4u;
  let seen = vec4u(0, 1, 2, 3) <= vec4u(last % 4u);
  // Behind the last score dx may be infinite: it is left out, not multiplied with y's 0.
  let edge = select(vec4f(0), vec4f(dx[start + whole]), seen);
  let edge_y = vec4f(y[start + whole]);
  var products = edge_y * edge;
  for (var i = 0u; i < whole; i++) { products += vec4f(y[start + i]) * vec4f(dx[start + i]); }
  let sum = dot(products, vec4f(1));
  for (var i = 0u; i < whole; i++) {
    dx[start + i] = vec4<T1>(vec4f(y[start + i]) * (vec4f(dx[start + i]) - sum));
  }
  dx[start + whole] = vec4<T1>(select(vec4f(0), edge_y * (edge - sum), seen));
  for (var i = whole + 1u; i < width; i++) { dx[start + i] = vec4<T1>(); }
}
