// Matrix multiplication on the matrix units of a GPU: f16 operands, f32 sums. Sums in f16 overflow.
//
// The only file with the spelling of `chromium_experimental_subgroup_matrix`, which still changes: this is Dawn's of
// webgpu 0.6.2 (types name columns before rows; the layout is a template argument). No machine that this project is
// developed on has matrix units: the file is compiled by Dawn's null backend in the tests, and no device is given it
// before its results have been compared with the plain kernel's on that very device.
//
// A workgroup of 4 x 2 subgroups makes 128 x 64 elements, 32 steps of k at a time; a subgroup 32 x 32 of them, which is
// 2 x 2 matrices of 16 x 16. Operands are staged in workgroup memory as they will be multiplied, rows 8 elements longer
// than needed so that neighbours lie in different banks, and the next step's are on their way into registers meanwhile.
// Up to 15 KiB for the tiles, and 8 for results on their way out, one matrix a subgroup at a time.
enable chromium_experimental_subgroup_matrix;
enable subgroups;
enable f16;

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> a: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<T3>>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const ROWS = 128u; // of the tile
const COLUMNS = 64u;
const STEP = 32u; // of k
const THREADS = 256u; // 8 subgroups of 32
const A_WIDTH = select(STEP, ROWS, TRANSPOSE_A == 1u); // of the tile as it is stored, in elements
const B_WIDTH = select(COLUMNS, STEP, TRANSPOSE_B == 1u);
const A_STRIDE = A_WIDTH + 8;
const B_STRIDE = B_WIDTH + 8;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;

var<workgroup> aTile: array<f16, ROWS * STEP / A_WIDTH * A_STRIDE>;
var<workgroup> bTile: array<f16, COLUMNS * STEP / B_WIDTH * B_STRIDE>;
var<workgroup> results: array<f32, THREADS / 32 * 256>; // 16 x 16 of each subgroup

// Four neighbouring elements of a as stored, zero past the end.
fn aQuad(base: u32, row: u32, k: u32) -> vec4h {
  if (row >= p.m || k >= p.k) { return vec4h(); }
  return vec4h(a[(base + select(row * p.a.rowStride + k, k * p.a.rowStride + row, TRANSPOSE_A == 1)) / 4]);
}

fn bQuad(base: u32, column: u32, k: u32) -> vec4h {
  if (column >= p.n || k >= p.k) { return vec4h(); }
  return vec4h(b[(base + select(k * p.b.rowStride + column, column * p.b.rowStride + k, TRANSPOSE_B == 1)) / 4]);
}

// The quad of the tile that an invocation loads: x along the stored row, y across.
fn place(i: u32, width: u32) -> vec2u {
  return vec2u(i % (width / 4) * 4, i / (width / 4));
}

fn left(row: u32, k: u32) -> Left {
  if (TRANSPOSE_A == 1) { return subgroupMatrixLoad<Left, col_major>(&aTile, k * A_STRIDE + row, A_STRIDE); }
  return subgroupMatrixLoad<Left, row_major>(&aTile, row * A_STRIDE + k, A_STRIDE);
}

fn right(column: u32, k: u32) -> Right {
  if (TRANSPOSE_B == 1) { return subgroupMatrixLoad<Right, col_major>(&bTile, column * B_STRIDE + k, B_STRIDE); }
  return subgroupMatrixLoad<Right, row_major>(&bTile, k * B_STRIDE + column, B_STRIDE);
}

// Needs subgroups of 32, m (if a is transposed), n and k, offsets and strides divisible by 4.
@compute @workgroup_size(THREADS)
fn matrix(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) mine: u32,
) {
  let across = (p.n + COLUMNS - 1) / COLUMNS;
  let tile = group.x + group.y * grid.x;
  if (tile >= across * ((p.m + ROWS - 1) / ROWS)) { return; }
  let row = tile / across * ROWS;
  let column = tile % across * COLUMNS;
  let aBase = start(p.a, group.z);
  let bBase = start(p.b, group.z);

  // Where this invocation's quads of a (four) and of b (two) lie in the tile: (row, k) and (column, k).
  var aPlaces: array<vec2u, 4>;
  var bPlaces: array<vec2u, 2>;
  for (var i = 0u; i < 4; i++) { aPlaces[i] = place(lane + i * THREADS, A_WIDTH); }
  for (var i = 0u; i < 2; i++) { bPlaces[i] = place(lane + i * THREADS, B_WIDTH); }
  var aNext: array<vec4h, 4>;
  var bNext: array<vec4h, 2>;

  let top = mine / 2 * 32;
  let side = mine % 2 * 32;
  var c00: Result;
  var c01: Result;
  var c10: Result;
  var c11: Result;
  for (var k = 0u; k < p.k + STEP; k += STEP) { // loads one step ahead of what it multiplies
    if (k > 0) {
      for (var i = 0u; i < 4; i++) {
        let at = aPlaces[i].y * A_STRIDE + aPlaces[i].x;
        for (var j = 0u; j < 4; j++) { aTile[at + j] = aNext[i][j]; }
      }
      for (var i = 0u; i < 2; i++) {
        let at = bPlaces[i].y * B_STRIDE + bPlaces[i].x;
        for (var j = 0u; j < 4; j++) { bTile[at + j] = bNext[i][j]; }
      }
      workgroupBarrier();
    }
    for (var i = 0u; i < 4; i++) {
      let at = select(aPlaces[i].yx, aPlaces[i], TRANSPOSE_A == 1);
      aNext[i] = aQuad(aBase, row + at.x, k + at.y);
    }
    for (var i = 0u; i < 2; i++) {
      let at = select(bPlaces[i], bPlaces[i].yx, TRANSPOSE_B == 1);
      bNext[i] = bQuad(bBase, column + at.x, k + at.y);
    }
    if (k > 0) {
      for (var step = 0u; step < STEP; step += 16) {
        let x0 = left(top, step);
        let x1 = left(top + 16, step);
        let z0 = right(side, step);
        let z1 = right(side + 16, step);
        c00 = subgroupMatrixMultiplyAccumulate(x0, z0, c00);
        c01 = subgroupMatrixMultiplyAccumulate(x0, z1, c01);
        c10 = subgroupMatrixMultiplyAccumulate(x1, z0, c10);
        c11 = subgroupMatrixMultiplyAccumulate(x1, z1, c11);
      }
      workgroupBarrier();
    }
  }

  for (var part = 0u; part < 4; part++) {
    if (part == 0) { subgroupMatrixStore<row_major>(&results, mine * 256, c00, 16); }
    if (part == 1) { subgroupMatrixStore<row_major>(&results, mine * 256, c01, 16); }
    if (part == 2) { subgroupMatrixStore<row_major>(&results, mine * 256, c10, 16); }
    if (part == 3) { subgroupMatrixStore<row_major>(&results, mine * 256, c11, 16); }
    workgroupBarrier();
    // Two quads an invocation: half of one of the 16 rows.
    let r = lane % 32 / 2;
    for (var i = 0u; i < 2; i++) {
      let s = lane % 2 * 8 + i * 4;
      let at = mine * 256 + r * 16 + s;
      store(
        group.z,
        row + top + part / 2 * 16 + r,
        column + side + part % 2 * 16 + s,
        vec4f(results[at], results[at + 1], results[at + 2], results[at + 3]),
      );
    }
    workgroupBarrier();
  }
}

fn store(z: u32, row: u32, column: u32, value: vec4f) {
  if (row >= p.m || column >= p.n) { return; }
  let i = (start(p.out, z) + row * p.out.rowStride + column) / 4;
  var old = vec4f();
  if (p.accumulate == 1) { old = vec4f(y[i]); }
  y[i] = vec4<T1>(old + p.scale * value);
}
