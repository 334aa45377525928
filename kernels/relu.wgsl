// ReLU:  y = max(x, 0). Each invocation goes over the tensor in strides of the grid.

#include "not_finite"

struct Parameters {
  count: u32, // of elements, or of vec4s (forward4, backward4)
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> x: array<T2>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = T1(at_least_0(f32(x[i]))); }
}

@group(0) @binding(3) var<storage, read> other: array<T3>;

// y = max(x + other, 0)
@compute @workgroup_size(WORKGROUP)
fn sum(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y[i] = T1(at_least_0(f32(x[i]) + f32(other[i]))); }
}

@group(0) @binding(1) var<storage, read_write> dx: array<T1>;
@group(0) @binding(2) var<storage, read> dy: array<T2>;
@group(0) @binding(3) var<storage, read> y_in: array<T3>;

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { dx[i] = T1(select(0.0, f32(dy[i]), passes(f32(y_in[i])))); }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> x4: array<vec4<T2>>;

@compute @workgroup_size(WORKGROUP)
fn forward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { y4[i] = vec4<T1>(at_least_0_4(vec4f(x4[i]))); }
}

@group(0) @binding(3) var<storage, read> other4: array<vec4<T3>>;

@compute @workgroup_size(WORKGROUP)
fn sum4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    y4[i] = vec4<T1>(at_least_0_4(vec4f(x4[i]) + vec4f(other4[i])));
  }
}

@group(0) @binding(1) var<storage, read_write> dx4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> dy4: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> y_in4: array<vec4<T3>>;

@compute @workgroup_size(WORKGROUP)
fn backward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    dx4[i] = vec4<T1>(select(vec4f(), vec4f(dy4[i]), passes4(vec4f(y_in4[i]))));
  }
}
