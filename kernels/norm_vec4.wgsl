// RMSNorm (Zhang, Sennrich 2019), one invocation a row, four elements a load; the width divides by 4.
//   y = gain * x * rstd,  rstd = 1 / sqrt(mean(x^2) + epsilon)

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // in vec4s
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

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read_write> rstd_out: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> gain: array<vec4<T4>>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var squares = vec4f();
  for (var i = 0u; i < p.width; i++) {
    let value = vec4f(x[start + i]);
    squares += value * value;
  }
  let rstd = reciprocal_deviation(dot(squares, vec4f(1)) / f32(4u * p.width), p.epsilon);
  rstd_out[row] = rstd;
  for (var i = 0u; i < p.width; i++) { y[start + i] = vec4<T1>(vec4f(x[start + i]) * rstd * vec4f(gain[i])); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> x_in: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(5) var<storage, read> gain_in: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> residual: array<vec4<T6>>;

// With g = dy * gain:  dx = rstd * (g - x * rstd^2 * mean(g * x))
@compute @workgroup_size(WORKGROUP)
fn backward_input(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let rstd = rstd_in[row];
  var products = vec4f();
  for (var i = 0u; i < p.width; i++) { products += vec4f(dy[start + i]) * vec4f(gain_in[i]) * vec4f(x_in[start + i]); }
  let along = dot(products, vec4f(1)) / f32(4u * p.width) * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    var value = rstd * vec4f(dy[start + i]) * vec4f(gain_in[i]) - along * vec4f(x_in[start + i]);
    if (p.residual != 0u) { value += vec4f(residual[start + i]); }
    dx[start + i] = vec4<T1>(value);
  }
}
