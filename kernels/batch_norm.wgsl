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

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> means${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(2) var<storage, read_write> squares${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(3) var<storage, read> x${_4}: array<${of(T3)}>;

@compute @workgroup_size(WORKGROUP)
fn moments${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let first = at / p.width * p.block;
  let end = min(p.rows, first + p.block);
  // Around the block's first value: sums around 0 would cancel where the mean is far from it.
  let middle = ${V}(x${_4}[first * p.width + at % p.width]);
  var sum = ${zero};
  var square = ${zero};
  for (var row = first + 1u; row < end; row++) {
    let value = ${V}(x${_4}[row * p.width + at % p.width]) - middle;
    sum += value;
    square += value * value;
  }
  let mean = sum / f32(end - first);
  means${_4}[at] = middle + mean;
  squares${_4}[at] = rectified${_4}(square - sum * mean);
}
#end

// The blocks' moments merged (Chan, Golub, LeVeque 1983), and what follows from them; here `width` counts elements.

@group(0) @binding(1) var<storage, read_write> mean_out: array<f32>; // [width]
@group(0) @binding(2) var<storage, read_write> rstd_out: array<f32>; // [width]
@group(0) @binding(3) var<storage, read_write> running_mean: array<f32>; // [width]
@group(0) @binding(4) var<storage, read_write> running_variance: array<f32>; // [width]
@group(0) @binding(5) var<storage, read> means_in: array<f32>; // [blocks, width]
@group(0) @binding(6) var<storage, read> squares_in: array<f32>; // [blocks, width]

@compute @workgroup_size(WORKGROUP)
fn statistics(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let column = id.x + id.y * n.x * WORKGROUP;
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

// What stands in for them in an evaluation: the running statistics.

@group(0) @binding(1) var<storage, read_write> running_rstd: array<f32>; // [width]
@group(0) @binding(2) var<storage, read> variance: array<f32>; // [width]

@compute @workgroup_size(WORKGROUP)
fn running(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let column = id.x + id.y * n.x * WORKGROUP;
  if (column >= p.width) { return; }
  running_rstd[column] = reciprocal_deviation(variance[column], p.epsilon);
}

// y from x.

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> y${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> x_in${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> mean${_4}: array<${V}>;
@group(0) @binding(4) var<storage, read> rstd${_4}: array<${V}>;
@group(0) @binding(5) var<storage, read> gain${_4}: array<${of(T5)}>;
@group(0) @binding(6) var<storage, read> bias${_4}: array<${of(T6)}>;

@compute @workgroup_size(WORKGROUP)
fn forward${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean${_4}[column];
  let factor = rstd${_4}[column] * ${V}(gain${_4}[column]);
  let level = ${V}(bias${_4}[column]);
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    var value = (${V}(x_in${_4}[i]) - middle) * factor + level;
    if (RELU == 1u) { value = rectified${_4}(value); }
    y${_4}[i] = ${of(T1)}(value);
  }
}
#end

// Of each block and column, the sums of dy * (x - mean) * rstd and of dy.

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> gains${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(2) var<storage, read_write> biases${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(5) var<storage, read> dy_in${_4}: array<${of(T5)}>;
@group(0) @binding(6) var<storage, read> xs${_4}: array<${of(T6)}>;
@group(0) @binding(7) var<storage, read> gain_in${_4}: array<${of(T7)}>;
@group(0) @binding(8) var<storage, read> bias_in${_4}: array<${of(T8)}>;

@compute @workgroup_size(WORKGROUP)
fn products${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean${_4}[column];
  let factor = rstd${_4}[column] * ${V}(gain_in${_4}[column]);
  let least = ${V}(bias_in${_4}[column]);
  var along = ${zero};
  var level = ${zero};
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    let from_mean = ${V}(xs${_4}[i]) - middle;
    var slope = ${V}(dy_in${_4}[i]);
    if (RELU == 1u) { slope = select(${zero}, slope, passes${_4}(from_mean * factor + least)); }
    along += slope * from_mean;
    level += slope;
  }
  gains${_4}[at] = along * rstd${_4}[column];
  biases${_4}[at] = level;
}
#end

// The blocks' sums added up; here `width` counts elements.

@group(0) @binding(1) var<storage, read_write> dgain_out: array<f32>; // [width]
@group(0) @binding(2) var<storage, read_write> dbias_out: array<f32>; // [width]
@group(0) @binding(3) var<storage, read> gains_in: array<f32>; // [blocks, width]
@group(0) @binding(4) var<storage, read> biases_in: array<f32>; // [blocks, width]

@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let column = id.x + id.y * n.x * WORKGROUP;
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

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> dx${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dy${_4}: array<${of(T2)}>;
@group(0) @binding(6) var<storage, read> dgain${_4}: array<${V}>;
@group(0) @binding(7) var<storage, read> dbias${_4}: array<${V}>;
@group(0) @binding(8) var<storage, read> x_of${_4}: array<${of(T8)}>;
@group(0) @binding(9) var<storage, read> bias_of${_4}: array<${of(T9)}>;

@compute @workgroup_size(WORKGROUP)
fn backward${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  if (at >= p.width * p.blocks) { return; }
  let column = at % p.width;
  let first = at / p.width * p.block;
  let middle = mean${_4}[column];
  let factor = rstd${_4}[column] * ${V}(gain${_4}[column]);
  let along = dgain${_4}[column] * rstd${_4}[column] / f32(p.rows);
  let level = dbias${_4}[column] / f32(p.rows);
  let least = ${V}(bias_of${_4}[column]);
  for (var row = first; row < min(p.rows, first + p.block); row++) {
    let i = row * p.width + column;
    let from_mean = ${V}(x_of${_4}[i]) - middle;
    var slope = ${V}(dy${_4}[i]);
    if (RELU == 1u) { slope = select(${zero}, slope, passes${_4}(from_mean * factor + least)); }
    dx${_4}[i] = ${of(T1)}(factor * (slope - level - along * from_mean));
  }
}
#end
