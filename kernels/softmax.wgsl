// Softmax in place, the plain reference: one invocation a row. A row of each square matrix holds scores for the first
// positions of its sequence: causal ones for those up to its own; none for those beyond the sequence's end, where ends
// are given. What lies behind is set to 0, whatever it was.

#include "not_finite"

struct Parameters {
  rows: u32,
  length: u32, // of a row, and rows of a matrix
  heads: u32, // matrices of a sequence
  causal: u32,
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<T1>;
@group(0) @binding(2) var<storage, read> ends: array<u32>; // of each sequence: its valid positions

const WORKGROUP = 64u;

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

// Scores that count in a row, whose sequence has `valid` positions. The first always does, or a row of an empty sequence
// would have no probabilities.
fn seen_of(row: u32, valid: u32) -> u32 {
  return clamp(min(select(p.length, row % p.length + 1u, p.causal != 0u), valid), 1u, p.length);
}

fn softmax(row: u32, valid: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var highest = f32(x[start]);
  for (var i = 1u; i < seen; i++) { highest = max(highest, f32(x[start + i])); }
  var sum = 0.0;
  for (var i = 0u; i < seen; i++) {
    let value = exp(f32(x[start + i]) - highest);
    x[start + i] = T1(value);
    sum += value;
  }
  let factor = nan_unless(1.0 / sum, is_finite(sum)); // a NaN among the scores may end as an infinite sum
  for (var i = 0u; i < seen; i++) { x[start + i] = T1(f32(x[start + i]) * factor); }
  for (var i = seen; i < p.length; i++) { x[start + i] = T1(0); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<T1>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<T2>;
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

// dx = y * (dy - sum(y * dy))
fn softmax_backward(row: u32, valid: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var sum = 0.0;
  for (var i = 0u; i < seen; i++) { sum += f32(y[start + i]) * f32(dx[start + i]); }
  for (var i = 0u; i < seen; i++) { dx[start + i] = T1(f32(y[start + i]) * (f32(dx[start + i]) - sum)); }
  for (var i = seen; i < p.length; i++) { dx[start + i] = T1(0); }
}
