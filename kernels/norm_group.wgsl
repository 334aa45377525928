// RMSNorm, one workgroup a row, for GPUs: neighbouring invocations read neighbouring elements.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32,
  epsilon: f32,
  residual: u32, // backward_input: whether dx starts from the residual's gradient
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;
alias T6 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read_write> rstd_out: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> gain: array<T4>;

const WORKGROUP = 128u;

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

@compute @workgroup_size(WORKGROUP)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var squares = 0.0;
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let value = f32(x[start + i]);
    squares += value * value;
  }
  let rstd = reciprocal_deviation(total(lane, squares) / f32(p.width), p.epsilon);
  if (lane == 0u) { rstd_out[row] = rstd; }
  for (var i = lane; i < p.width; i += WORKGROUP) { y[start + i] = T1(f32(x[start + i]) * rstd * f32(gain[i])); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<T1>;
@group(0) @binding(2) var<storage, read> dy: array<T2>;
@group(0) @binding(3) var<storage, read> x_in: array<T3>;
@group(0) @binding(4) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(5) var<storage, read> gain_in: array<T5>;
@group(0) @binding(6) var<storage, read> residual: array<T6>;

@compute @workgroup_size(WORKGROUP)
fn backward_input(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let rstd = rstd_in[row];
  var products = 0.0;
  for (var i = lane; i < p.width; i += WORKGROUP) { products += f32(dy[start + i]) * f32(gain_in[i]) * f32(x_in[start + i]); }
  let along = total(lane, products) / f32(p.width) * rstd * rstd * rstd;
  for (var i = lane; i < p.width; i += WORKGROUP) {
    var value = rstd * f32(dy[start + i]) * f32(gain_in[i]) - along * f32(x_in[start + i]);
    if (p.residual != 0u) { value += f32(residual[start + i]); }
    dx[start + i] = T1(value);
  }
}
