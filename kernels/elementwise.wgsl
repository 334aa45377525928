// Elementwise operations on f32. One invocation four elements; long tensors spread over the y axis of the grid.
// Buffers have room for a whole last vec4, but what lies there beside the tensor is kept: a sum over a stretch with
// several tensors in it may read it.

struct Parameters {
  count: u32, // elements
  value: f32, // scale's factor, fill's value
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<storage, read> a: array<vec4f>;
@group(0) @binding(3) var<storage, read> b: array<vec4f>;

const WORKGROUP = 64u;

fn put(i: u32, value: vec4f) {
  let left = p.count - 4u * i;
  if (left >= 4u) { y[i] = value; } else { y[i] = select(y[i], value, vec4u(0, 1, 2, 3) < vec4u(left)); }
}

// y = a + b
@compute @workgroup_size(WORKGROUP)
fn add(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (4u * i < p.count) { put(i, a[i] + b[i]); }
}

// y = value * a
@compute @workgroup_size(WORKGROUP)
fn scale(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (4u * i < p.count) { put(i, p.value * a[i]); }
}

// y = value
@compute @workgroup_size(WORKGROUP)
fn fill(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (4u * i < p.count) { put(i, vec4f(p.value)); }
}
