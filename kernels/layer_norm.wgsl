// LayerNorm (Ba, Kiros, Hinton 2016), the plain reference: one invocation a row.
//   y = gain * (x - mean) * rstd + bias,  rstd = 1 / sqrt(mean((x - mean)^2) + epsilon)

const WORKGROUP = 64u;

#include "rows_plain"
#include "layer_norm"

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
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

#include "layer_norm_backward"
