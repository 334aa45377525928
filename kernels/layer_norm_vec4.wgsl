// LayerNorm, one invocation a row, four elements a load; the width divides by 4. See layer_norm.wgsl.

const WORKGROUP = 64u;

#include "rows_vec4"
#include "layer_norm"

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
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

#include "layer_norm_backward"
