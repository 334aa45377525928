// LayerNorm, one invocation a row, four elements a load; the width divides by 4. See layer_norm.wgsl.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // in vec4s
  epsilon: f32,
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read_write> statistics_out: array<vec2f>; // of each row: mean, rstd
@group(0) @binding(3) var<storage, read> x: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> gain: array<vec4<T4>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<T5>>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  // Welford's means and squares of every fourth element, then those of all (Chan, Golub, LeVeque, 1979).
  var means = vec4f();
  var squares4 = vec4f();
  for (var i = 0u; i < p.width; i++) {
    let value = vec4f(x[start + i]);
    let step = value - means;
    means += step * (1.0 / f32(i + 1u));
    squares4 += step * (value - means);
  }
  let mean = dot(means, vec4f(0.25));
  let apart = means - mean;
  let squares = dot(squares4, vec4f(1)) + f32(p.width) * dot(apart, apart);
  let rstd = reciprocal_deviation(squares / f32(4u * p.width), p.epsilon);
  statistics_out[row] = vec2f(mean, rstd);
  for (var i = 0u; i < p.width; i++) {
    y[start + i] = vec4<T1>((vec4f(x[start + i]) - mean) * rstd * vec4f(gain[i]) + vec4f(bias[i]));
  }
}

@group(0) @binding(1) var<storage, read_write> dx: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> x_in: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(5) var<storage, read> gain_in: array<vec4<T5>>;

@compute @workgroup_size(WORKGROUP)
fn backward_input(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let count = f32(4u * p.width);
  let mean = statistics[row].x;
  let rstd = statistics[row].y;
  var sum = vec4f();
  var products = vec4f();
  for (var i = 0u; i < p.width; i++) {
    let g = vec4f(dy[start + i]) * vec4f(gain_in[i]);
    sum += g;
    products += g * (vec4f(x_in[start + i]) - mean);
  }
  let level = dot(sum, vec4f(1)) / count * rstd;
  let along = dot(products, vec4f(1)) / count * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    let g = vec4f(dy[start + i]) * vec4f(gain_in[i]);
    dx[start + i] = vec4<T1>(rstd * g - level - along * (vec4f(x_in[start + i]) - mean));
  }
}
