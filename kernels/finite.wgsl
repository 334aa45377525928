// Where the first of a block's numbers stands that is infinite or no number at all, or no smaller than a power of two. Told by the
// bits: WGSL may assume there are no infinite ones. Each invocation goes over the block in strides of the grid.

struct Parameters {
  count: u32, // of vec4s
  limit: u32, // bits of a power of two, or of infinity
}

@group(0) @binding(0) var<uniform> p: Parameters;
// The complement of the first one's index, and 0 where there is none: what is looked for starts at 0, as a cleared buffer does.
@group(0) @binding(1) var<storage, read_write> found: atomic<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4u>; // f32

const WORKGROUP = 64u;
const EXPONENT = 0x7f800000u; // its bits grow with the number; all are set in infinity and NaN alone

@compute @workgroup_size(WORKGROUP)
fn find_not_finite(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    let bad = (x[i] & vec4u(EXPONENT)) >= vec4u(p.limit);
    if (any(bad)) {
      let lane = select(select(select(3u, 2u, bad.z), 1u, bad.y), 0u, bad.x);
      atomicMax(&found, ~(4u * i + lane));
      return; // what this invocation would find later stands later
    }
  }
}
