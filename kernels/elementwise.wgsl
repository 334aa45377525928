// Elementwise operations on f32. Each invocation goes over the tensor in strides of the grid.

struct Parameters {
  count: u32, // of elements, or of vec4s (add4, scale4, fill4)
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
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = a[i] + b[i]; }
}

// y = value * a
@compute @workgroup_size(WORKGROUP)
fn scale(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = p.value * a[i]; }
}

// y = value
@compute @workgroup_size(WORKGROUP)
fn fill(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = p.value; }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> y4: array<vec4f>;
@group(0) @binding(2) var<storage, read> a4: array<vec4f>;
@group(0) @binding(3) var<storage, read> b4: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn add4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = a4[i] + b4[i]; }
}

@compute @workgroup_size(WORKGROUP)
fn scale4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = p.value * a4[i]; }
}

@compute @workgroup_size(WORKGROUP)
fn fill4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = vec4f(p.value); }
}
