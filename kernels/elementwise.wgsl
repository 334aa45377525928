// Elementwise operations in f32, whatever the tensors hold. Each invocation goes over the tensor in strides of the grid.

struct Parameters {
  count: u32, // of elements, or of vec4s (add4, scale4, fill4)
  value: f32, // scale's factor, fill's value
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> a: array<T2>;
@group(0) @binding(3) var<storage, read> b: array<T3>;

const WORKGROUP = 64u;

// y = a + b
@compute @workgroup_size(WORKGROUP)
fn add(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = T1(f32(a[i]) + f32(b[i])); }
}

// y = value * a
@compute @workgroup_size(WORKGROUP)
fn scale(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = T1(p.value * f32(a[i])); }
}

// y = value
@compute @workgroup_size(WORKGROUP)
fn fill(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = T1(p.value); }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> a4: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> b4: array<vec4<T3>>;

@compute @workgroup_size(WORKGROUP)
fn add4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = vec4<T1>(vec4f(a4[i]) + vec4f(b4[i])); }
}

@compute @workgroup_size(WORKGROUP)
fn scale4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = vec4<T1>(p.value * vec4f(a4[i])); }
}

@compute @workgroup_size(WORKGROUP)
fn fill4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = vec4<T1>(vec4f(p.value)); }
}
