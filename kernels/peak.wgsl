// What a device can do at best, to hold kernels against: multiply-adds in registers alone, and a copy.

alias T1 = f32;
@group(0) @binding(0) var<uniform> p: vec4u; // x: steps
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;

const WORKGROUP = 64u;

// 3 independent chains of vec4, 24 floating-point operations a step: as many as a processor's 16 registers hold (with 8
// chains lavapipe is half as fast), and enough to keep a GPU busy. The operands come from memory, or a compiler could work
// the sums out. A product and a sum, since fma() is slow where there is no instruction for it.
@compute @workgroup_size(WORKGROUP)
fn multiply(@builtin(global_invocation_id) id: vec3u) {
  let a = f32(y[id.x].x);
  let b = f32(y[id.x].y);
  var c0 = vec4f(y[id.x]);
  var c1 = c0 + 1;
  var c2 = c0 + 2;
  for (var i = 0u; i < p.x; i++) {
    c0 = c0 * b + a;
    c1 = c1 * b + a;
    c2 = c2 * b + a;
  }
  y[id.x] = vec4<T1>(c0 + c1 + c2);
}

// Neighbouring invocations on neighbouring vec4s.
@compute @workgroup_size(WORKGROUP)
fn copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  for (var i = id.x; i < p.x; i += grid.x * WORKGROUP) { y[i] = vec4<T1>(x[i]); }
}
