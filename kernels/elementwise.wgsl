// Elementwise operations on f32. One invocation an element; long tensors spread over the y axis of the grid.

struct Parameters {
  count: u32, // elements
  value: f32, // scale's factor, fill's value
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;

const WORKGROUP = 64u;

// y = a + b
@compute @workgroup_size(WORKGROUP)
fn add(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i < p.count) { y[i] = a[i] + b[i]; }
}

// y = value * a
@compute @workgroup_size(WORKGROUP)
fn scale(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i < p.count) { y[i] = p.value * a[i]; }
}

// y = value
@compute @workgroup_size(WORKGROUP)
fn fill(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i < p.count) { y[i] = p.value; }
}
