// RMSNorm (Zhang, Sennrich 2019), the plain reference: one invocation a row.
//   y = gain * x * rstd,  rstd = 1 / sqrt(mean(x^2) + epsilon)

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

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var squares = 0.0;
  for (var i = 0u; i < p.width; i++) {
    let value = f32(x[start + i]);
    squares += value * value;
  }
  let rstd = reciprocal_deviation(squares / f32(p.width), p.epsilon);
  rstd_out[row] = rstd;
  for (var i = 0u; i < p.width; i++) { y[start + i] = T1(f32(x[start + i]) * rstd * f32(gain[i])); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<T1>;
@group(0) @binding(2) var<storage, read> dy: array<T2>;
@group(0) @binding(3) var<storage, read> x_in: array<T3>;
@group(0) @binding(4) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(5) var<storage, read> gain_in: array<T5>;
@group(0) @binding(6) var<storage, read> residual: array<T6>;

// With g = dy * gain:  dx = rstd * (g - x * rstd^2 * mean(g * x))
@compute @workgroup_size(WORKGROUP)
fn backward_input(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let rstd = rstd_in[row];
  var products = 0.0;
  for (var i = 0u; i < p.width; i++) { products += f32(dy[start + i]) * f32(gain_in[i]) * f32(x_in[start + i]); }
  let along = products / f32(p.width) * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    var value = rstd * f32(dy[start + i]) * f32(gain_in[i]) - along * f32(x_in[start + i]);
    if (p.residual != 0u) { value += f32(residual[start + i]); }
    dx[start + i] = T1(value);
  }
}
