// LayerNorm (Ba, Kiros, Hinton 2016), the plain reference: one invocation a row.
//   y = gain * (x - mean) * rstd + bias,  rstd = 1 / sqrt(mean((x - mean)^2) + epsilon)

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32,
  epsilon: f32,
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read_write> statistics_out: array<vec2f>; // of each row: mean, rstd
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> gain: array<T4>;
@group(0) @binding(5) var<storage, read> bias: array<T5>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  // In one go, after Welford (1962): sums of x and x^2 would cancel where the mean is far from 0.
  var mean = 0.0;
  var squares = 0.0; // of what differs from the mean so far
  for (var i = 0u; i < p.width; i++) {
    let value = f32(x[start + i]);
    let step = value - mean;
    mean += step / f32(i + 1u);
    squares += step * (value - mean);
  }
  let rstd = reciprocal_deviation(squares / f32(p.width), p.epsilon);
  statistics_out[row] = vec2f(mean, rstd);
  for (var i = 0u; i < p.width; i++) {
    y[start + i] = T1((f32(x[start + i]) - mean) * rstd * f32(gain[i]) + f32(bias[i]));
  }
}

@group(0) @binding(1) var<storage, read_write> dx: array<T1>;
@group(0) @binding(2) var<storage, read> dy: array<T2>;
@group(0) @binding(3) var<storage, read> x_in: array<T3>;
@group(0) @binding(4) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(5) var<storage, read> gain_in: array<T5>;

// With g = dy * gain and n = (x - mean) * rstd:  dx = rstd * (g - mean(g) - n * mean(g * n))
@compute @workgroup_size(WORKGROUP)
fn backward_input(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let mean = statistics[row].x;
  let rstd = statistics[row].y;
  var sum = 0.0;
  var products = 0.0;
  for (var i = 0u; i < p.width; i++) {
    let g = f32(dy[start + i]) * f32(gain_in[i]);
    sum += g;
    products += g * (f32(x_in[start + i]) - mean);
  }
  let level = sum / f32(p.width) * rstd;
  let along = products / f32(p.width) * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    let g = f32(dy[start + i]) * f32(gain_in[i]);
    dx[start + i] = T1(rstd * g - level - along * (f32(x_in[start + i]) - mean));
  }
}
