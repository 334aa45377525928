// Softmax in place, one workgroup a row, for GPUs. See softmax.wgsl.

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

var<workgroup> partial: array<f32, WORKGROUP>;

// The sum of `value` over the workgroup, the same in every invocation.
fn total(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  return partial[0];
}

// The largest of `value` over the workgroup, likewise.
fn largest(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  return partial[0];
}

@compute @workgroup_size(WORKGROUP)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row < p.rows) { softmax(row, p.length, lane); }
}

@compute @workgroup_size(WORKGROUP)
fn forward_padded(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row < p.rows) { softmax(row, ends[sequence_of(row)], lane); }
}

fn sequence_of(row: u32) -> u32 { return row / (p.heads * p.length); }

// See softmax.wgsl.
fn seen_of(row: u32, valid: u32) -> u32 {
  return clamp(min(select(p.length, row % p.length + 1u, p.causal != 0u), valid), 1u, p.length);
}

fn softmax(row: u32, valid: u32, lane: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var mine = f32(x[start]);
  for (var i = lane; i < seen; i += WORKGROUP) { mine = max(mine, f32(x[start + i])); }
  let highest = largest(lane, mine);
  workgroupBarrier(); // all have read `partial` before it is used again, and x[start] before it is written
  var sum = 0.0;
  for (var i = lane; i < seen; i += WORKGROUP) {
    let value = exp(f32(x[start + i]) - highest);
    x[start + i] = T1(value);
    sum += value;
  }
  let all = total(lane, sum);
  let factor = nan_unless(1.0 / all, is_finite(all)); // see softmax.wgsl
  for (var i = lane; i < p.length; i += WORKGROUP) {
    x[start + i] = T1(select(0.0, f32(x[start + i]) * factor, i < seen));
  }
}

@group(0) @binding(1) var<storage, read_write> dx: array<T1>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<T2>;
@group(0) @binding(3) var<storage, read> ends_in: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row < p.rows) { softmax_backward(row, p.length, lane); }
}

@compute @workgroup_size(WORKGROUP)
fn backward_padded(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row < p.rows) { softmax_backward(row, ends_in[sequence_of(row)], lane); }
}

fn softmax_backward(row: u32, valid: u32, lane: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var products = 0.0;
  for (var i = lane; i < seen; i += WORKGROUP) { products += f32(y[start + i]) * f32(dx[start + i]); }
  let sum = total(lane, products);
  for (var i = lane; i < p.length; i += WORKGROUP) {
    dx[start + i] = T1(select(0.0, f32(y[start + i]) * (f32(dx[start + i]) - sum), i < seen));
  }
}
