// Causal softmax in place, one invocation a row, four elements a load; the length divides by 4. See softmax.wgsl.

struct Parameters {
  rows: u32,
  length: u32, // rows of a matrix
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<vec4f>;

const WORKGROUP = 64u;
const LOWEST = -3.4e38;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let width = p.length / 4u;
  let start = row * width;
  let last = row % p.length;
  let whole = last / 4u; // vec4s before the one that the diagonal goes through
  let seen = vec4u(0, 1, 2, 3) <= vec4u(last % 4u);
  let edge = select(vec4f(LOWEST), x[start + whole], seen);
  var highest4 = edge;
  for (var i = 0u; i < whole; i++) { highest4 = max(highest4, x[start + i]); }
  let highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w));
  let edge_value = select(vec4f(0), exp(edge - highest), seen);
  var sum = edge_value;
  for (var i = 0u; i < whole; i++) { sum += exp(x[start + i] - highest); }
  let factor = 1.0 / dot(sum, vec4f(1));
  // On a processor a store costs twice a load and an exp() together: better exp() again than to store in between.
  for (var i = 0u; i < whole; i++) { x[start + i] = exp(x[start + i] - highest) * factor; }
  x[start + whole] = edge_value * factor;
  for (var i = whole + 1u; i < width; i++) { x[start + i] = vec4f(0); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<vec4f>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let width = p.length / 4u;
  let start = row * width;
  let last = row % p.length;
  let whole = last / 4u;
  let seen = vec4u(0, 1, 2, 3) <= vec4u(last % 4u);
  // Behind the diagonal dx may be infinite: it is left out, not multiplied with y's 0.
  let edge = select(vec4f(0), dx[start + whole], seen);
  let edge_y = y[start + whole];
  var products = edge_y * edge;
  for (var i = 0u; i < whole; i++) { products += y[start + i] * dx[start + i]; }
  let sum = dot(products, vec4f(1));
  for (var i = 0u; i < whole; i++) { dx[start + i] = y[start + i] * (dx[start + i] - sum); }
  dx[start + whole] = edge_y * (edge - sum);
  for (var i = whole + 1u; i < width; i++) { dx[start + i] = vec4f(0); }
}
