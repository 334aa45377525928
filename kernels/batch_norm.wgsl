// BatchNorm (Ioffe, Szegedy 2015) over the rows of a micro-batch, each column by itself:
//   y = gain * (x - mean) * rstd + bias,  rstd = 1 / sqrt(mean((x - mean)^2) + epsilon)
// and, with RELU, the larger of that and 0; the backward sees from x where that is y, so that y need not be read.
// An invocation owns one column (or four, the entries that end in 4) and goes down a block of rows, so that what belongs to
// the column is loaded once; neighbours are on neighbouring columns. Sums of blocks are merged in their order by one
// invocation a column: the same bits in every run.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s
  block: u32, // rows in a block
  blocks: u32,
  epsilon: f32,
  momentum: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;
const RELU = 0u;

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T5 = f32;
alias T6 = f32;
alias T7 = f32;
alias T8 = f32;
alias T9 = f32;

// Mean and sum of squared differences from it, of each block and column.

@group(0) @binding(1) var<storage, read_write> means: array<f32>; // [blocks, width]
@group(0) @binding(2) var<storage, read_write> squares: array<f32>; // [blocks, width]
@group(0) @binding(3) var<storage, read> x: array<T3>;

@compute @workgroup_size(WORKGROUP)
fn moments(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let first = at / p.width * p.block;
  let end = min(p.rows, first + p.block);
  // Around the block's first value: sums around 0 would cancel where the mean is far from it.
  let middle = f32(x[first * p.width + at % p.width]);
  var sum = 0.0;
  var square = 0.0;
  for (var row = first + 1u; row < end; row++) {
    let value = f32(x[row * p.width + at % p.width]) - middle;
    sum += value;
    square += value * value;
  }
  let mean = sum / f32(end - first);
  means[at] = middle + mean;
  squares[at] = at_least_0(square - sum * mean);
}

@group(0) @binding(1) var<storage, read_write> means4: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> squares4: array<vec4f>;
@group(0) @binding(3) var<storage, read> x4: array<vec4<T3>>;

@compute @workgroup_size(WORKGROUP)
fn moments4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let first = at / p.width * p.block;
  let end = min(p.rows, first + p.block);
  let middle = vec4f(x4[first * p.width + at % p.width]);
  var sum = vec4f();
  var square = vec4f();
  for (var row = first + 1u; row < end; row++) {
    let value = vec4f(x4[row * p.width + at % p.width]) - middle;
    sum += value;
    square += value * value;
  }
  let mean = sum / f32(end - first);
  means4[at] = middle + mean;
  squares4[at] = at_least_0_4(square - sum * mean);
}

// The blocks' moments merged (Chan, Golub, LeVeque 1983), and what follows from them; here `width` counts elements.

@group(0) @binding(1) var<storage, read_write> mean_out: array<f32>; // [width]
@group(0) @binding(2) var<storage, read_write> rstd_out: array<f32>; // [width]
@group(0) @binding(3) var<storage, read_write> running_mean: array<f32>; // [width]
@group(0) @binding(4) var<storage, read_write> running_variance: array<f32>; // [width]
@group(0) @binding(5) var<storage, read> means_in: array<f32>; // [blocks, width]
@group(0) @binding(6) var<storage, read> squares_in: array<f32>; // [blocks, width]

@compute @workgroup_size(WORKGROUP)
fn statistics(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.width) { return; }
  var mean = means_in[column];
  var square = squares_in[column];
  for (var i = 1u; i < p.blocks; i++) {
    let before = f32(i * p.block);
    let count = f32(min(p.block, p.rows - i * p.block));
    let step = means_in[i * p.width + column] - mean;
    mean += step * (count / (before + count));
    square += squares_in[i * p.width + column] + step * step * (before * count / (before + count));
  }
  let rows = f32(p.rows);
  mean_out[column] = mean;
  rstd_out[column] = reciprocal_deviation(square / rows, p.epsilon);
  running_mean[column] += p.momentum * (mean - running_mean[column]);
  running_variance[column] += p.momentum * (square / max(rows - 1.0, 1.0) - running_variance[column]);
}

// y from x.

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> x_in: array<T2>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> rstd: array<f32>;
@group(0) @binding(5) var<storage, read> gain: array<T5>;
@group(0) @binding(6) var<storage, read> bias: array<T6>;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean[column];
  let factor = rstd[column] * f32(gain[column]);
  let level = f32(bias[column]);
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    var value = (f32(x_in[i]) - middle) * factor + level;
    if (RELU == 1u) { value = at_least_0(value); }
    y[i] = T1(value);
  }
}

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> x_in4: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> mean4: array<vec4f>;
@group(0) @binding(4) var<storage, read> rstd4: array<vec4f>;
@group(0) @binding(5) var<storage, read> gain4: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> bias4: array<vec4<T6>>;

@compute @workgroup_size(WORKGROUP)
fn forward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean4[column];
  let factor = rstd4[column] * vec4f(gain4[column]);
  let level = vec4f(bias4[column]);
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    var value = (vec4f(x_in4[i]) - middle) * factor + level;
    if (RELU == 1u) { value = at_least_0_4(value); }
    y4[i] = vec4<T1>(value);
  }
}

// Of each block and column, the sums of dy * (x - mean) * rstd and of dy.

@group(0) @binding(1) var<storage, read_write> gains: array<f32>; // [blocks, width]
@group(0) @binding(2) var<storage, read_write> biases: array<f32>; // [blocks, width]
@group(0) @binding(5) var<storage, read> dy_in: array<T5>;
@group(0) @binding(6) var<storage, read> xs: array<T6>;
@group(0) @binding(7) var<storage, read> gain_in: array<T7>;
@group(0) @binding(8) var<storage, read> bias_in: array<T8>;

@compute @workgroup_size(WORKGROUP)
fn products(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean[column];
  let factor = rstd[column] * f32(gain_in[column]);
  let least = f32(bias_in[column]);
  var along = 0.0;
  var level = 0.0;
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    let from_mean = f32(xs[i]) - middle;
    var slope = f32(dy_in[i]);
    if (RELU == 1u) { slope = select(0.0, slope, passes(from_mean * factor + least)); }
    along += slope * from_mean;
    level += slope;
  }
  gains[at] = along * rstd[column];
  biases[at] = level;
}

@group(0) @binding(1) var<storage, read_write> gains4: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> biases4: array<vec4f>;
@group(0) @binding(5) var<storage, read> dy_in4: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> xs4: array<vec4<T6>>;
@group(0) @binding(7) var<storage, read> gain_in4: array<vec4<T7>>;
@group(0) @binding(8) var<storage, read> bias_in4: array<vec4<T8>>;

@compute @workgroup_size(WORKGROUP)
fn products4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean4[column];
  let factor = rstd4[column] * vec4f(gain_in4[column]);
  let least = vec4f(bias_in4[column]);
  var along = vec4f();
  var level = vec4f();
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    let from_mean = vec4f(xs4[i]) - middle;
    var slope = vec4f(dy_in4[i]);
    if (RELU == 1u) { slope = select(vec4f(), slope, passes4(from_mean * factor + least)); }
    along += slope * from_mean;
    level += slope;
  }
  gains4[at] = along * rstd4[column];
  biases4[at] = level;
}

// The blocks' sums added up; here `width` counts elements.

@group(0) @binding(1) var<storage, read_write> dgain_out: array<f32>; // [width]
@group(0) @binding(2) var<storage, read_write> dbias_out: array<f32>; // [width]
@group(0) @binding(3) var<storage, read> gains_in: array<f32>; // [blocks, width]
@group(0) @binding(4) var<storage, read> biases_in: array<f32>; // [blocks, width]

@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.width) { return; }
  var gain = 0.0;
  var bias = 0.0;
  for (var i = 0u; i < p.blocks; i++) {
    gain += gains_in[i * p.width + column];
    bias += biases_in[i * p.width + column];
  }
  dgain_out[column] = gain;
  dbias_out[column] = bias;
}

// dx = gain * rstd * (dy - mean(dy) - normalised x * mean(dy * normalised x)); the means are dbias / rows and dgain / rows.

@group(0) @binding(1) var<storage, read_write> dx: array<T1>;
@group(0) @binding(2) var<storage, read> dy: array<T2>;
@group(0) @binding(6) var<storage, read> dgain: array<f32>;
@group(0) @binding(7) var<storage, read> dbias: array<f32>;
@group(0) @binding(8) var<storage, read> x_of: array<T8>;
@group(0) @binding(9) var<storage, read> bias_of: array<T9>;

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean[column];
  let factor = rstd[column] * f32(gain[column]);
  let along = dgain[column] * rstd[column] / f32(p.rows);
  let level = dbias[column] / f32(p.rows);
  let least = f32(bias_of[column]);
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    let from_mean = f32(x_of[i]) - middle;
    var slope = f32(dy[i]);
    if (RELU == 1u) { slope = select(0.0, slope, passes(from_mean * factor + least)); }
    dx[i] = T1(factor * (slope - level - along * from_mean));
  }
}

@group(0) @binding(1) var<storage, read_write> dx4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> dy4: array<vec4<T2>>;
@group(0) @binding(6) var<storage, read> dgain4: array<vec4f>;
@group(0) @binding(7) var<storage, read> dbias4: array<vec4f>;
@group(0) @binding(8) var<storage, read> x_of4: array<vec4<T8>>;
@group(0) @binding(9) var<storage, read> bias_of4: array<vec4<T9>>;

@compute @workgroup_size(WORKGROUP)
fn backward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean4[column];
  let factor = rstd4[column] * vec4f(gain4[column]);
  let along = dgain4[column] * rstd4[column] / f32(p.rows);
  let level = dbias4[column] / f32(p.rows);
  let least = vec4f(bias_of4[column]);
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    let from_mean = vec4f(x_of4[i]) - middle;
    var slope = vec4f(dy4[i]);
    if (RELU == 1u) { slope = select(vec4f(), slope, passes4(from_mean * factor + least)); }
    dx4[i] = vec4<T1>(factor * (slope - level - along * from_mean));
  }
}
