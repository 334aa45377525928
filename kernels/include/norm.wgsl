// RMSNorm (Zhang, Sennrich 2019), in the words of rows_plain.wgsl and its like.
//   y = gain * x * rstd,  rstd = 1 / sqrt(mean(x^2) + epsilon)

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // in steps of a load: elements or vec4s
  epsilon: f32,
  residual: u32, // backward_input: whether dx starts from the residual's gradient
}

#repeat binding 1 7
  alias T${binding} = f32;
#end

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read_write> rstd_out: array<f32>;
@group(0) @binding(3) var<storage, read> x: array<${of(T3)}>;
@group(0) @binding(4) var<storage, read> gain: array<${of(T4)}>;

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var squares = ${zero};
  for (var i = ${first}; i < p.width; ${next}) {
    let value = ${V}(x[start + i]);
    squares += value * value;
  }
  let rstd = reciprocal_deviation(${total(squares)} / ${count}, p.epsilon);
  ${once(rstd_out[row] = rstd;)}
  for (var i = ${first}; i < p.width; ${next}) { y[start + i] = ${of(T1)}(${V}(x[start + i]) * rstd * ${V}(gain[i])); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dy: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> x_in: array<${of(T3)}>;
@group(0) @binding(4) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(5) var<storage, read> gain_in: array<${of(T5)}>;
@group(0) @binding(6) var<storage, read> residual: array<${of(T6)}>;

// With g = dy * gain:  dx = rstd * (g - x * rstd^2 * mean(g * x))
@compute @workgroup_size(WORKGROUP)
fn backward_input(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let rstd = rstd_in[row];
  var products = ${zero};
  for (var i = ${first}; i < p.width; ${next}) {
    products += ${V}(dy[start + i]) * ${V}(gain_in[i]) * ${V}(x_in[start + i]);
  }
  let along = ${total(products)} / ${count} * rstd * rstd * rstd;
  for (var i = ${first}; i < p.width; ${next}) {
    var value = rstd * ${V}(dy[start + i]) * ${V}(gain_in[i]) - along * ${V}(x_in[start + i]);
    if (p.residual != 0u) { value += ${V}(residual[start + i]); }
    dx[start + i] = ${of(T1)}(value);
  }
}
