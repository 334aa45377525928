// What a device can do at best, to hold kernels against: multiply-adds in registers alone, and a copy.

struct Parameters {
  steps: u32, // a multiple of 8; copy: vec4s
}

alias T1 = f32;
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;

const WORKGROUP = 64u;

// Independent chains of multiply-adds on vec4f, several steps of each in a turn of the loop: software drivers spend as much on
// the turn itself as on a dozen of them. The operands come from memory, or a compiler could work the sums out. A product and a
// sum, since fma() is slow where there is no instruction for it. Few chains fit the 16 registers of most processors, many
// the 32 of AVX-512: GFLOP/s on one thread of lavapipe (AVX-512, 8 lanes) 3 chains, 1 step a turn 37, 8 steps 54; 7
// chains, 4 steps 70; SwiftShader 2.9, 9.5, 8.8.
@compute @workgroup_size(WORKGROUP)
fn multiplyFew(@builtin(global_invocation_id) id: vec3u) {
  let a = f32(y[id.x].x);
  let b = f32(y[id.x].y);
  var c0 = vec4f(y[id.x]);
  var c1 = c0 + 1;
  var c2 = c0 + 2;
  for (var i = 0u; i < p.steps; i += 8) {
    #repeat step 0 8
      c0 = c0 * b + a; c1 = c1 * b + a; c2 = c2 * b + a;
    #end
  }
  y[id.x] = vec4<T1>(c0 + c1 + c2);
}

@compute @workgroup_size(WORKGROUP)
fn multiplyMany(@builtin(global_invocation_id) id: vec3u) {
  let a = f32(y[id.x].x);
  let b = f32(y[id.x].y);
  var c0 = vec4f(y[id.x]);
  #repeat i 1 7
    var c${i} = c0 + ${i};
  #end
  for (var i = 0u; i < p.steps; i += 4) {
    #repeat step 0 4
      #repeat i 0 7
        c${i} = c${i} * b + a;
      #end
    #end
  }
  y[id.x] = vec4<T1>(c0 + c1 + c2 + c3 + c4 + c5 + c6);
}

// Neighbouring invocations on neighbouring vec4s.
@compute @workgroup_size(WORKGROUP)
fn copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  for (var i = id.x; i < p.steps; i += grid.x * WORKGROUP) { y[i] = vec4<T1>(x[i]); }
}
