// LayerNorm (Ba, Kiros, Hinton 2016), the plain reference: one invocation a row.
//   y = gain * (x - mean) * rstd + bias,  rstd = 1 / sqrt(mean((x - mean)^2) + epsilon)

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

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var sum = 0.0;
  for (var i = 0u; i < p.width; i++) { sum += x[start + i]; }
  let mean = sum / f32(p.width);
  // Not from the sum of squares in one go: that cancels where the mean is far from 0.
  var squares = 0.0;
  for (var i = 0u; i < p.width; i++) {
    let value = x[start + i] - mean;
    squares += value * value;
  }
  let rstd = 1.0 / sqrt(squares / f32(p.width) + p.epsilon);
  statistics_out[row] = vec2f(mean, rstd);
  for (var i = 0u; i < p.width; i++) { y[start + i] = (x[start + i] - mean) * rstd * gain[i] + bias[i]; }
}

@group(0) @binding(1) var<storage, read_write> dx: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> x_in: array<f32>;
@group(0) @binding(4) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(5) var<storage, read> gain_in: array<f32>;

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
    let g = dy[start + i] * gain_in[i];
    sum += g;
    products += g * (x_in[start + i] - mean);
  }
  let level = sum / f32(p.width) * rstd;
  let along = products / f32(p.width) * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    dx[start + i] = rstd * dy[start + i] * gain_in[i] - level - along * (x_in[start + i] - mean);
  }
}
