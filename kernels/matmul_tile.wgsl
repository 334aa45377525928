// Matrix multiplication for real GPUs, large tiles: 8 x 8 sums an invocation, operands loaded as 4 x 4 blocks of vec4.
//
// (SIDE / 8)^2 invocations make SIDE x SIDE elements, 16 steps of k at a time: 64 multiplications for four vec4 out of
// workgroup memory, where matmul_workgroup.wgsl has 16 for two. While a step is computed the next one's blocks are on
// their way into registers. SIDE 128 takes 16 KiB, all that every device has, and wants many tiles; 64 takes half, and
// fills a GPU sooner. Not timed on a GPU yet; on lavapipe 4.9 to 5.8 GFLOP/s at 512 x 512 x 512, where matmul_workgroup.wgsl
// has 3.4.

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> a: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<T3>>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const SIDE = 64u; // of the tile, both ways: 64 or 128
const THREADS = SIDE * SIDE / 64;
const QUADS = SIDE / 4;
const BLOCKS = 2 * SIDE / THREADS; // that an invocation loads in a step, of the SIDE of a and the SIDE of b

// Four rows of a, or columns of b, an element: [k][row / 4].
var<workgroup> aTile: array<vec4f, 16 * QUADS>;
var<workgroup> bTile: array<vec4f, 16 * QUADS>;

// Four rows of a at four steps of k, a step a column of the result. Rows past the end are read at the last ones and not
// stored; steps past the end are zero.
fn aBlock(base: u32, row: u32, k: u32) -> mat4x4f {
  if (k >= p.k) { return mat4x4f(); }
  if (TRANSPOSE_A == 1) {
    let i = (base + k * p.a.rowStride + min(row, p.m - 4)) / 4;
    let step = p.a.rowStride / 4;
    return mat4x4f(vec4f(a[i]), vec4f(a[i + step]), vec4f(a[i + 2 * step]), vec4f(a[i + 3 * step]));
  }
  let i = (vec4u(base + k) + min(row + vec4u(0, 1, 2, 3), vec4u(p.m - 1)) * p.a.rowStride) / 4;
  return transpose(mat4x4f(vec4f(a[i.x]), vec4f(a[i.y]), vec4f(a[i.z]), vec4f(a[i.w])));
}

fn bBlock(base: u32, column: u32, k: u32) -> mat4x4f {
  if (k >= p.k) { return mat4x4f(); }
  if (TRANSPOSE_B == 0) {
    let i = (base + k * p.b.rowStride + min(column, p.n - 4)) / 4;
    let step = p.b.rowStride / 4;
    return mat4x4f(vec4f(b[i]), vec4f(b[i + step]), vec4f(b[i + 2 * step]), vec4f(b[i + 3 * step]));
  }
  let i = (vec4u(base + k) + min(column + vec4u(0, 1, 2, 3), vec4u(p.n - 1)) * p.b.rowStride) / 4;
  return transpose(mat4x4f(vec4f(b[i.x]), vec4f(b[i.y]), vec4f(b[i.z]), vec4f(b[i.w])));
}

// Needs m (if a is transposed), n and k, offsets and strides divisible by 4.
@compute @workgroup_size(THREADS)
fn tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.n + SIDE - 1) / SIDE;
  let number = group.x + group.y * grid.x;
  if (number >= across * ((p.m + SIDE - 1) / SIDE)) { return; }
  let row = number / across * SIDE;
  let column = number % across * SIDE;
  let aBase = start(p.a, group.z);
  let bBase = start(p.b, group.z);

  // Blocks 0 to SIDE - 1 are of a, the others of b. Eight neighbouring invocations take neighbouring quads, so that they
  // write to different banks, and the next eight the next steps of k, so that 64 neighbouring bytes of a row are read.
  var next: array<mat4x4f, BLOCKS>;
  for (var i = 0u; i < BLOCKS; i++) {
    let block = (lane + i * THREADS) % SIDE;
    let quad = block % 8 + block / 32 * 8;
    if (lane + i * THREADS < SIDE) { next[i] = aBlock(aBase, row + quad * 4, block / 8 % 4 * 4); }
    else { next[i] = bBlock(bBase, column + quad * 4, block / 8 % 4 * 4); }
  }

  // Rows 4 r to 4 r + 3 of the tile's upper and of its lower half, and columns alike: neighbours read neighbouring quads.
  let r = lane / (QUADS / 2);
  let s = lane % (QUADS / 2);
  var c00 = mat4x4f(); // upper left; columns are rows of the result
  var c01 = mat4x4f();
  var c10 = mat4x4f();
  var c11 = mat4x4f();
  for (var k = 0u; k < p.k; k += 16) {
    for (var i = 0u; i < BLOCKS; i++) {
      let block = (lane + i * THREADS) % SIDE;
      let at = block / 8 % 4 * 4 * QUADS + block % 8 + block / 32 * 8;
      if (lane + i * THREADS < SIDE) {
        aTile[at] = next[i][0];
        aTile[at + QUADS] = next[i][1];
        aTile[at + 2 * QUADS] = next[i][2];
        aTile[at + 3 * QUADS] = next[i][3];
      } else {
        bTile[at] = next[i][0];
        bTile[at + QUADS] = next[i][1];
        bTile[at + 2 * QUADS] = next[i][2];
        bTile[at + 3 * QUADS] = next[i][3];
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < BLOCKS; i++) {
      let block = (lane + i * THREADS) % SIDE;
      let quad = block % 8 + block / 32 * 8;
      let step = k + 16 + block / 8 % 4 * 4;
      if (lane + i * THREADS < SIDE) { next[i] = aBlock(aBase, row + quad * 4, step); }
      else { next[i] = bBlock(bBase, column + quad * 4, step); }
    }
    for (var i = 0u; i < 16; i++) {
      let x0 = aTile[i * QUADS + r];
      let x1 = aTile[i * QUADS + r + QUADS / 2];
      let z0 = bTile[i * QUADS + s];
      let z1 = bTile[i * QUADS + s + QUADS / 2];
      c00 = plusOuter(c00, x0, z0);
      c01 = plusOuter(c01, x0, z1);
      c10 = plusOuter(c10, x1, z0);
      c11 = plusOuter(c11, x1, z1);
    }
    workgroupBarrier();
  }

  store(group.z, row + 4 * r, column + 4 * s, c00);
  store(group.z, row + 4 * r, column + 4 * s + SIDE / 2, c01);
  store(group.z, row + 4 * r + SIDE / 2, column + 4 * s, c10);
  store(group.z, row + 4 * r + SIDE / 2, column + 4 * s + SIDE / 2, c11);
}

// The sums of four rows, a row a column of the matrix, and one step of k more.
fn plusOuter(c: mat4x4f, x: vec4f, z: vec4f) -> mat4x4f {
  return mat4x4f(fma(x.xxxx, z, c[0]), fma(x.yyyy, z, c[1]), fma(x.zzzz, z, c[2]), fma(x.wwww, z, c[3]));
}

fn store(z: u32, row: u32, column: u32, c: mat4x4f) {
  if (column >= p.n) { return; }
  let i = (start(p.out, z) + row * p.out.rowStride + column) / 4;
  var rows = c; // moved up row by row: an index that varies would put the sums into memory
  for (var r = 0u; r < min(4, p.m - min(row, p.m)); r++) {
    let at = i + r * p.out.rowStride / 4;
    var old = vec4f();
    if (p.accumulate == 1) { old = vec4f(y[at]); }
    y[at] = vec4<T1>(old + p.scale * rows[0]);
    rows = mat4x4f(rows[1], rows[2], rows[3], rows[3]);
  }
}
