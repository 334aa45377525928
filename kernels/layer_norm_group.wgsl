// LayerNorm, one workgroup a row, for GPUs: neighbouring invocations read neighbouring elements. See layer_norm.wgsl.

struct Parameters {
  rows: u32,
  width: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> statistics_out: array<vec2f>; // of each row: mean, rstd
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read> gain: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;

const WORKGROUP = 128u;

var<workgroup> partial: array<vec2f, WORKGROUP>;

// The sums of `value` over the workgroup, the same in every invocation.
fn total(lane: u32, value: vec2f) -> vec2f {
  workgroupBarrier(); // all have read what the last call left
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
  var sum = 0.0;
  for (var i = lane; i < p.width; i += WORKGROUP) { sum += x[start + i]; }
  let mean = total(lane, vec2f(sum, 0)).x / f32(p.width);
  var squares = 0.0;
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let value = x[start + i] - mean;
    squares += value * value;
  }
  let rstd = 1.0 / sqrt(total(lane, vec2f(squares, 0)).x / f32(p.width) + p.epsilon);
  if (lane == 0u) { statistics_out[row] = vec2f(mean, rstd); }
  for (var i = lane; i < p.width; i += WORKGROUP) { y[start + i] = (x[start + i] - mean) * rstd * gain[i] + bias[i]; }
}

@group(0) @binding(1) var<storage, read_write> dx: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> x_in: array<f32>;
@group(0) @binding(4) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(5) var<storage, read> gain_in: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn backward_input(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let mean = statistics[row].x;
  let rstd = statistics[row].y;
  var sums = vec2f();
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let g = dy[start + i] * gain_in[i];
    sums += g * vec2f(1, x_in[start + i] - mean);
  }
  let means = total(lane, sums) / f32(p.width);
  let level = means.x * rstd;
  let along = means.y * rstd * rstd * rstd;
  for (var i = lane; i < p.width; i += WORKGROUP) {
    dx[start + i] = rstd * dy[start + i] * gain_in[i] - level - along * (x_in[start + i] - mean);
  }
}
