// Matrix multiplication for real GPUs: tiles of a and b in workgroup memory, 4 x 4 sums an invocation in registers.
//
// 256 invocations make 64 x 64 elements, 16 steps of k at a time: a step reads two vec4f for 16 multiplications, the
// tiles take 8.5 KiB, and every device has 16. 4 x 4 an invocation is what others found portable: about 80 % of the
// best on GPUs of four vendors. Not timed on a GPU yet; checked on lavapipe and SwiftShader, where barriers are dear
// (3.3 and 0.8 GFLOP/s). Takes any sizes, strides and offsets.

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> a: array<T2>;
@group(0) @binding(3) var<storage, read> b: array<T3>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const SIDE = 64u; // of the tile, both ways

// Rows of 17, of which 16 are used: neighbours then write to different banks, whichever way an operand is stored.
var<workgroup> aTile: array<vec4f, 16 * 17>; // [row / 4][k], four rows each
var<workgroup> bTile: array<vec4f, 16 * 17>; // [k][column / 4], four columns each

// Four neighbouring rows of a at one k, or four columns of b; zero past the end.
fn aQuad(base: u32, row: u32, k: u32) -> vec4f {
  var x: vec4f;
  for (var i = 0u; i < 4; i++) {
    if (row + i < p.m && k < p.k) {
      x[i] = f32(a[base + select((row + i) * p.a.rowStride + k, k * p.a.rowStride + row + i, TRANSPOSE_A == 1)]);
    }
  }
  return x;
}

fn bQuad(base: u32, column: u32, k: u32) -> vec4f {
  var x: vec4f;
  for (var i = 0u; i < 4; i++) {
    if (column + i < p.n && k < p.k) {
      x[i] = f32(b[base + select(k * p.b.rowStride + column + i, (column + i) * p.b.rowStride + k, TRANSPOSE_B == 1)]);
    }
  }
  return x;
}

@compute @workgroup_size(256)
fn workgroupTile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.n + SIDE - 1) / SIDE;
  let tile = group.x + group.y * grid.x;
  if (tile >= across * ((p.m + SIDE - 1) / SIDE)) { return; }
  let row = tile / across * SIDE;
  let column = tile % across * SIDE;
  let aBase = start(p.a, group.z);
  let bBase = start(p.b, group.z);

  // Who loads what: neighbouring invocations read neighbouring elements.
  let slow = lane / 16;
  let fast = lane % 16;
  let aPlace = select(vec2u(slow, fast), vec2u(fast, slow), TRANSPOSE_A == 1); // (row / 4, k)
  let bPlace = select(vec2u(fast, slow), vec2u(slow, fast), TRANSPOSE_B == 1); // (column / 4, k)

  var c = mat4x4f(); // columns are rows of the result
  for (var k = 0u; k < p.k; k += 16) {
    aTile[aPlace.x * 17 + aPlace.y] = aQuad(aBase, row + aPlace.x * 4, k + aPlace.y);
    bTile[bPlace.y * 17 + bPlace.x] = bQuad(bBase, column + bPlace.x * 4, k + bPlace.y);
    workgroupBarrier();
    for (var i = 0u; i < 16; i++) {
      let x = aTile[slow * 17 + i];
      let z = bTile[i * 17 + fast];
      c[0] = fma(vec4f(x[0]), z, c[0]);
      c[1] = fma(vec4f(x[1]), z, c[1]);
      c[2] = fma(vec4f(x[2]), z, c[2]);
      c[3] = fma(vec4f(x[3]), z, c[3]);
    }
    workgroupBarrier();
  }

  let yBase = start(p.out, group.z);
  for (var r = row + slow * 4; r < min(row + slow * 4 + 4, p.m); r++) {
    for (var j = 0u; j < 4; j++) {
      let at = column + fast * 4 + j;
      if (at >= p.n) { break; }
      let i = yBase + r * p.out.rowStride + at;
      var old = 0.0;
      if (p.accumulate == 1) { old = f32(y[i]); }
      y[i] = T1(old + p.scale * c[0][j]);
    }
    c = mat4x4f(c[1], c[2], c[3], c[3]);
  }
}
