// ReLU:  y = max(x, 0). Each invocation goes over the tensor in strides of the grid.

#include "not_finite"

struct Parameters {
  count: u32, // of elements, or of vec4s (forward4, backward4)
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> y${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> x${_4}: array<${of(T2)}>;

@compute @workgroup_size(WORKGROUP)
fn forward${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y${_4}[i] = ${of(T1)}(rectified${_4}(${V}(x${_4}[i]))); }
}

@group(0) @binding(3) var<storage, read> other${_4}: array<${of(T3)}>;

// y = max(x + other, 0)
@compute @workgroup_size(WORKGROUP)
fn sum${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    y${_4}[i] = ${of(T1)}(rectified${_4}(${V}(x${_4}[i]) + ${V}(other${_4}[i])));
  }
}

@group(0) @binding(1) var<storage, read_write> dx${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dy${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> y_in${_4}: array<${of(T3)}>;

@compute @workgroup_size(WORKGROUP)
fn backward${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    dx${_4}[i] = ${of(T1)}(select(${zero}, ${V}(dy${_4}[i]), passes${_4}(${V}(y_in${_4}[i]))));
  }
}
#end
