// Whether any of a block's numbers is infinite or no number at all. Told by the bits: WGSL may assume there are no such
// numbers. `found` is set to 1, and never back to 0. Each invocation goes over the block in strides of the grid.

struct Parameters {
  count: u32, // of vec4s
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> found: atomic<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4u>; // f32

const WORKGROUP = 64u;
const EXPONENT = 0x7f800000u; // all of its bits are set in infinity and NaN alone

@compute @workgroup_size(WORKGROUP)
fn find_overflow(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  var any_found = false;
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    any_found = any_found || any((x[i] & vec4u(EXPONENT)) == vec4u(EXPONENT));
  }
  if (any_found) { atomicStore(&found, 1u); }
}
