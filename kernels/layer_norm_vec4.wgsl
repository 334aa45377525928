// LayerNorm, one invocation a row, four elements a load; the width divides by 4. See layer_norm.wgsl.

struct Parameters {
  rows: u32,
  width: u32, // in vec4s
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> statistics_out: array<vec2f>; // of each row: mean, rstd
@group(0) @binding(3) var<storage, read> x: array<vec4f>;
@group(0) @binding(4) var<storage, read> gain: array<vec4f>;
@group(0) @binding(5) var<storage, read> bias: array<vec4f>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let count = f32(4u * p.width);
  var sum = vec4f();
  for (var i = 0u; i < p.width; i++) { sum += x[start + i]; }
  let mean = dot(sum, vec4f(1)) / count;
  var squares = vec4f();
  for (var i = 0u; i < p.width; i++) {
    let value = x[start + i] - mean;
    squares += value * value;
  }
  let rstd = 1.0 / sqrt(dot(squares, vec4f(1)) / count + p.epsilon);
  statistics_out[row] = vec2f(mean, rstd);
  for (var i = 0u; i < p.width; i++) { y[start + i] = (x[start + i] - mean) * rstd * gain[i] + bias[i]; }
}

@group(0) @binding(1) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;
@group(0) @binding(3) var<storage, read> x_in: array<vec4f>;
@group(0) @binding(4) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(5) var<storage, read> gain_in: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn backward_input(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let count = f32(4u * p.width);
  let mean = statistics[row].x;
  let rstd = statistics[row].y;
  var sum = vec4f();
  var products = vec4f();
  for (var i = 0u; i < p.width; i++) {
    let g = dy[start + i] * gain_in[i];
    sum += g;
    products += g * (x_in[start + i] - mean);
  }
  let level = dot(sum, vec4f(1)) / count * rstd;
  let along = dot(products, vec4f(1)) / count * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    dx[start + i] = rstd * dy[start + i] * gain_in[i] - level - along * (x_in[start + i] - mean);
  }
}
