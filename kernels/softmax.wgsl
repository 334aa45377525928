// Causal softmax in place, the plain reference: one invocation a row. Row i of each square matrix holds scores for the
// positions 0..i; what lies behind them is set to 0, whatever it was.

struct Parameters {
  rows: u32,
  length: u32, // of a row, and rows of a matrix
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.length;
  let seen = row % p.length + 1u;
  var highest = x[start];
  for (var i = 1u; i < seen; i++) { highest = max(highest, x[start + i]); }
  var sum = 0.0;
  for (var i = 0u; i < seen; i++) {
    let value = exp(x[start + i] - highest);
    x[start + i] = value;
    sum += value;
  }
  let factor = 1.0 / sum;
  for (var i = 0u; i < seen; i++) { x[start + i] *= factor; }
  for (var i = seen; i < p.length; i++) { x[start + i] = 0.0; }
}

@group(0) @binding(1) var<storage, read_write> dx: array<f32>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<f32>;

// dx = y * (dy - sum(y * dy))
@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.length;
  let seen = row % p.length + 1u;
  var sum = 0.0;
  for (var i = 0u; i < seen; i++) { sum += y[start + i] * dx[start + i]; }
  for (var i = 0u; i < seen; i++) { dx[start + i] = y[start + i] * (dx[start + i] - sum); }
  for (var i = seen; i < p.length; i++) { dx[start + i] = 0.0; }
}
