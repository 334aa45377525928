// Elementwise operations in f32, whatever the tensors hold. Each invocation goes over the tensor in strides of the grid.

struct Parameters {
  count: u32, // of elements, or of vec4s (add4, scale4, fill4)
  value: f32, // scale's factor, fill's value
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> y${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> a${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> b${_4}: array<${of(T3)}>;

// y = a + b
@compute @workgroup_size(WORKGROUP)
fn add${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y${_4}[i] = ${of(T1)}(${V}(a${_4}[i]) + ${V}(b${_4}[i])); }
}

// y = value * a
@compute @workgroup_size(WORKGROUP)
fn scale${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y${_4}[i] = ${of(T1)}(p.value * ${V}(a${_4}[i])); }
}

// y = value
@compute @workgroup_size(WORKGROUP)
fn fill${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y${_4}[i] = ${of(T1)}(${V}(p.value)); }
}
#end
