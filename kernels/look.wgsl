// One pass over a block of gradients: where the first of its numbers stands that is infinite or no number at all, or no smaller than a
// power of two, told by the bits since WGSL may assume there are no infinite ones, and the squares of all, added up in the same order in every run. Squares of f32 do not fit into f32:
// large and small numbers are scaled before, and summed up by themselves (Blue, "A portable Fortran program to find the Euclidean norm
// of a vector", 1978). Each invocation goes over the block in strides of the grid, a workgroup adds up its sums, and the host, in
// float64, those of the workgroups.

struct Parameters {
  count: u32, // of vec4s
  limit: u32, // bits of a power of two, or of infinity
}

@group(0) @binding(0) var<uniform> p: Parameters;
// First the complement of the index of the first that is bad, 0 where there is none; then of each workgroup three sums of squares, as
// bits of f32: of the numbers from 2^-50 to 2^50; of those above, times 2^-76; of those below, times 2^76.
@group(0) @binding(1) var<storage, read_write> report: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4u>; // f32

const WORKGROUP = 64u;
const EXPONENT = 0x7f800000u; // its bits grow with the number; all are set in infinity and NaN alone
const LARGE = 0x58800000u; // bits of 2^50
const SMALL = 0x26800000u; // bits of 2^-50

var<workgroup> sums: array<vec3f, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn look(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
) {
  var sum = vec3f(0);
  var found = false;
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    let bits = x[i];
    let size = bits & vec4u(EXPONENT);
    let bad = size >= vec4u(p.limit);
    if (any(bad) && !found) { // what this invocation would find later stands later
      let at = select(select(select(3u, 2u, bad.z), 1u, bad.y), 0u, bad.x);
      atomicMax(&report[0], ~(4u * i + at));
      found = true;
    }
    let value = bitcast<vec4f>(bits);
    let isLarge = size >= vec4u(LARGE);
    let isSmall = size < vec4u(SMALL);
    let middle = select(value, vec4f(0), isLarge | isSmall);
    let large = select(vec4f(0), value * 0x1p-76f, isLarge);
    let small = select(vec4f(0), value * 0x1p76f, isSmall);
    sum += vec3f(dot(middle, middle), dot(large, large), dot(small, small));
  }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] += sums[lane + half]; }
    workgroupBarrier();
  }
  if (lane < 3u) { atomicStore(&report[1u + 3u * group.x + lane], bitcast<u32>(sums[0][lane])); }
}
