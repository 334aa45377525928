// Causal softmax in place, one workgroup a row, for GPUs. See softmax.wgsl.

struct Parameters {
  rows: u32,
  length: u32, // of a row, and rows of a matrix
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

const WORKGROUP = 64u;

var<workgroup> partial: array<f32, WORKGROUP>;

// The sum of `value` over the workgroup, the same in every invocation.
fn total(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  return partial[0];
}

// The largest of `value` over the workgroup, likewise.
fn largest(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
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
  let start = row * p.length;
  let seen = row % p.length + 1u;
  var mine = x[start];
  for (var i = lane; i < seen; i += WORKGROUP) { mine = max(mine, x[start + i]); }
  let highest = largest(lane, mine);
  workgroupBarrier(); // all have read `partial` before it is used again, and x[start] before it is written
  var sum = 0.0;
  for (var i = lane; i < seen; i += WORKGROUP) {
    let value = exp(x[start + i] - highest);
    x[start + i] = value;
    sum += value;
  }
  let factor = 1.0 / total(lane, sum);
  for (var i = lane; i < p.length; i += WORKGROUP) {
    if (i < seen) { x[start + i] *= factor; } else { x[start + i] = 0.0; }
  }
}

@group(0) @binding(1) var<storage, read_write> dx: array<f32>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row >= p.rows) { return; }
  let start = row * p.length;
  let seen = row % p.length + 1u;
  var products = 0.0;
  for (var i = lane; i < seen; i += WORKGROUP) { products += y[start + i] * dx[start + i]; }
  let sum = total(lane, products);
  for (var i = lane; i < p.length; i += WORKGROUP) {
    if (i < seen) { dx[start + i] = y[start + i] * (dx[start + i] - sum); } else { dx[start + i] = 0.0; }
  }
}
