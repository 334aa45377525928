// Matrix multiplication for SwiftShader with its Subzero compiler, the software driver of those who have no other: 4
// lanes, loads that go lane by lane, variables in memory.
//
// A lane loads eight rows of a and eight columns of b, eight steps of k each. quadSwap lends it the rows of the other
// three lanes, for one instruction a value: with its own columns these make all 32 x 32 products of the tile, and what
// a lane sums up belongs to rows that its neighbours loaded. Nothing is loaded twice, nothing broadcast.
//
// A load of one value for each lane takes some 80 instructions (each lane tests a bit of the bounds mask and inserts
// its element by way of memory), whatever the addresses: equal, consecutive or not. Workgroup memory is no better. A
// sum that lives across the loop takes about 20 an iteration (masked, and once more for its value after the loop), a
// step of k 4 or 5. So the tile is large, and eight steps of k are added up before a sum is touched. Half of the time
// goes into loads, half into sums. Tiles tried, rows by columns a lane, GFLOP/s at 512 x 512 x 512 on one thread:
//   4 steps of k: 4 x 4 3.8, 8 x 4 4.4, 8 x 8 5.2, 16 x 8 5.7 (1.0 s to compile), 8 x 16 5.5 (1.0 s)
//   8 steps of k: 4 x 4 4.0, 4 x 8 4.7, 8 x 8 5.5 (0.5 s), 12 x 8 6.2 (1.2 s), 8 x 16 6.1 (1.2 s)
// matmul_subgroup.wgsl makes 2.5. Rejected: products of matrices and vectors instead of single elements 5.2, and in 4
// x 4 3.2 for 4.0, for all that a vector operation makes is written to memory before the next one reads it; sums in an
// array 5.4 for 5.9; b by way of an array 4.9 for 5.4; swaps made anew for each product 5.7 for 5.9; loads in turns
// with sums, no difference; stores written out, 1.0 s to compile for 0.4. lavapipe with 4 lanes: 8 for 19.
enable subgroups;

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> a: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<T3>>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const SIDE = 32u; // of a tile: 8 rows by 8 columns a lane

// Needs m (if a is transposed), n, offsets and strides divisible by 4, k by 8.
@compute @workgroup_size(4)
fn quads(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.n + SIDE - 1) / SIDE;
  let tile = group.x + group.y * grid.x;
  if (tile >= across * ((p.m + SIDE - 1) / SIDE)) { return; }
  // This lane's first four rows and columns; the other four are 16 further.
  let row = tile / across * SIDE + lane * 4;
  let column = tile % across * SIDE + lane * 4;

  let aStart = start(p.a, group.z);
  let bStart = start(p.b, group.z);
  let a0 = places(aStart, row, p.m, p.a.rowStride, TRANSPOSE_A == 0);
  let a4 = places(aStart, row + 16, p.m, p.a.rowStride, TRANSPOSE_A == 0);
  let b0 = places(bStart, column, p.n, p.b.rowStride, TRANSPOSE_B == 1);
  let b4 = places(bStart, column + 16, p.n, p.b.rowStride, TRANSPOSE_B == 1);
  let aStep = select(1, p.a.rowStride, TRANSPOSE_A == 1); // from one block of four steps of k to the next
  let bStep = select(p.b.rowStride, 1, TRANSPOSE_B == 1);

  var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
  var c4 = vec4f(); var c5 = vec4f(); var c6 = vec4f(); var c7 = vec4f();
  var c8 = vec4f(); var c9 = vec4f(); var c10 = vec4f(); var c11 = vec4f();
  var c12 = vec4f(); var c13 = vec4f(); var c14 = vec4f(); var c15 = vec4f();
  var c16 = vec4f(); var c17 = vec4f(); var c18 = vec4f(); var c19 = vec4f();
  var c20 = vec4f(); var c21 = vec4f(); var c22 = vec4f(); var c23 = vec4f();
  var c24 = vec4f(); var c25 = vec4f(); var c26 = vec4f(); var c27 = vec4f();
  var c28 = vec4f(); var c29 = vec4f(); var c30 = vec4f(); var c31 = vec4f();
  var c32 = vec4f(); var c33 = vec4f(); var c34 = vec4f(); var c35 = vec4f();
  var c36 = vec4f(); var c37 = vec4f(); var c38 = vec4f(); var c39 = vec4f();
  var c40 = vec4f(); var c41 = vec4f(); var c42 = vec4f(); var c43 = vec4f();
  var c44 = vec4f(); var c45 = vec4f(); var c46 = vec4f(); var c47 = vec4f();
  var c48 = vec4f(); var c49 = vec4f(); var c50 = vec4f(); var c51 = vec4f();
  var c52 = vec4f(); var c53 = vec4f(); var c54 = vec4f(); var c55 = vec4f();
  var c56 = vec4f(); var c57 = vec4f(); var c58 = vec4f(); var c59 = vec4f();
  var c60 = vec4f(); var c61 = vec4f(); var c62 = vec4f(); var c63 = vec4f();
  for (var k = 0u; k < p.k / 4; k += 2) {
    let ai = k * aStep;
    let bi = k * bStep;
    let z0 = columns(b0 + bi);
    let z1 = columns(b0 + bi + bStep);
    let w0 = columns(b4 + bi);
    let w1 = columns(b4 + bi + bStep);

    let x0 = rows(a0 + ai);
    let u0 = rows(a0 + ai + aStep);
    c0 = product(x0[0], u0[0], z0, z1, c0);
    c1 = product(x0[0], u0[0], w0, w1, c1);
    let x01 = quadSwapX(x0[0]);
    let u01 = quadSwapX(u0[0]);
    c2 = product(x01, u01, z0, z1, c2);
    c3 = product(x01, u01, w0, w1, c3);
    let x02 = quadSwapY(x0[0]);
    let u02 = quadSwapY(u0[0]);
    c4 = product(x02, u02, z0, z1, c4);
    c5 = product(x02, u02, w0, w1, c5);
    let x03 = quadSwapDiagonal(x0[0]);
    let u03 = quadSwapDiagonal(u0[0]);
    c6 = product(x03, u03, z0, z1, c6);
    c7 = product(x03, u03, w0, w1, c7);
    c8 = product(x0[1], u0[1], z0, z1, c8);
    c9 = product(x0[1], u0[1], w0, w1, c9);
    let x11 = quadSwapX(x0[1]);
    let u11 = quadSwapX(u0[1]);
    c10 = product(x11, u11, z0, z1, c10);
    c11 = product(x11, u11, w0, w1, c11);
    let x12 = quadSwapY(x0[1]);
    let u12 = quadSwapY(u0[1]);
    c12 = product(x12, u12, z0, z1, c12);
    c13 = product(x12, u12, w0, w1, c13);
    let x13 = quadSwapDiagonal(x0[1]);
    let u13 = quadSwapDiagonal(u0[1]);
    c14 = product(x13, u13, z0, z1, c14);
    c15 = product(x13, u13, w0, w1, c15);
    c16 = product(x0[2], u0[2], z0, z1, c16);
    c17 = product(x0[2], u0[2], w0, w1, c17);
    let x21 = quadSwapX(x0[2]);
    let u21 = quadSwapX(u0[2]);
    c18 = product(x21, u21, z0, z1, c18);
    c19 = product(x21, u21, w0, w1, c19);
    let x22 = quadSwapY(x0[2]);
    let u22 = quadSwapY(u0[2]);
    c20 = product(x22, u22, z0, z1, c20);
    c21 = product(x22, u22, w0, w1, c21);
    let x23 = quadSwapDiagonal(x0[2]);
    let u23 = quadSwapDiagonal(u0[2]);
    c22 = product(x23, u23, z0, z1, c22);
    c23 = product(x23, u23, w0, w1, c23);
    c24 = product(x0[3], u0[3], z0, z1, c24);
    c25 = product(x0[3], u0[3], w0, w1, c25);
    let x31 = quadSwapX(x0[3]);
    let u31 = quadSwapX(u0[3]);
    c26 = product(x31, u31, z0, z1, c26);
    c27 = product(x31, u31, w0, w1, c27);
    let x32 = quadSwapY(x0[3]);
    let u32 = quadSwapY(u0[3]);
    c28 = product(x32, u32, z0, z1, c28);
    c29 = product(x32, u32, w0, w1, c29);
    let x33 = quadSwapDiagonal(x0[3]);
    let u33 = quadSwapDiagonal(u0[3]);
    c30 = product(x33, u33, z0, z1, c30);
    c31 = product(x33, u33, w0, w1, c31);

    let x4 = rows(a4 + ai);
    let u4 = rows(a4 + ai + aStep);
    c32 = product(x4[0], u4[0], z0, z1, c32);
    c33 = product(x4[0], u4[0], w0, w1, c33);
    let x41 = quadSwapX(x4[0]);
    let u41 = quadSwapX(u4[0]);
    c34 = product(x41, u41, z0, z1, c34);
    c35 = product(x41, u41, w0, w1, c35);
    let x42 = quadSwapY(x4[0]);
    let u42 = quadSwapY(u4[0]);
    c36 = product(x42, u42, z0, z1, c36);
    c37 = product(x42, u42, w0, w1, c37);
    let x43 = quadSwapDiagonal(x4[0]);
    let u43 = quadSwapDiagonal(u4[0]);
    c38 = product(x43, u43, z0, z1, c38);
    c39 = product(x43, u43, w0, w1, c39);
    c40 = product(x4[1], u4[1], z0, z1, c40);
    c41 = product(x4[1], u4[1], w0, w1, c41);
    let x51 = quadSwapX(x4[1]);
    let u51 = quadSwapX(u4[1]);
    c42 = product(x51, u51, z0, z1, c42);
    c43 = product(x51, u51, w0, w1, c43);
    let x52 = quadSwapY(x4[1]);
    let u52 = quadSwapY(u4[1]);
    c44 = product(x52, u52, z0, z1, c44);
    c45 = product(x52, u52, w0, w1, c45);
    let x53 = quadSwapDiagonal(x4[1]);
    let u53 = quadSwapDiagonal(u4[1]);
    c46 = product(x53, u53, z0, z1, c46);
    c47 = product(x53, u53, w0, w1, c47);
    c48 = product(x4[2], u4[2], z0, z1, c48);
    c49 = product(x4[2], u4[2], w0, w1, c49);
    let x61 = quadSwapX(x4[2]);
    let u61 = quadSwapX(u4[2]);
    c50 = product(x61, u61, z0, z1, c50);
    c51 = product(x61, u61, w0, w1, c51);
    let x62 = quadSwapY(x4[2]);
    let u62 = quadSwapY(u4[2]);
    c52 = product(x62, u62, z0, z1, c52);
    c53 = product(x62, u62, w0, w1, c53);
    let x63 = quadSwapDiagonal(x4[2]);
    let u63 = quadSwapDiagonal(u4[2]);
    c54 = product(x63, u63, z0, z1, c54);
    c55 = product(x63, u63, w0, w1, c55);
    c56 = product(x4[3], u4[3], z0, z1, c56);
    c57 = product(x4[3], u4[3], w0, w1, c57);
    let x71 = quadSwapX(x4[3]);
    let u71 = quadSwapX(u4[3]);
    c58 = product(x71, u71, z0, z1, c58);
    c59 = product(x71, u71, w0, w1, c59);
    let x72 = quadSwapY(x4[3]);
    let u72 = quadSwapY(u4[3]);
    c60 = product(x72, u72, z0, z1, c60);
    c61 = product(x72, u72, w0, w1, c61);
    let x73 = quadSwapDiagonal(x4[3]);
    let u73 = quadSwapDiagonal(u4[3]);
    c62 = product(x73, u73, z0, z1, c62);
    c63 = product(x73, u73, w0, w1, c63);
  }

  var c = array<vec4f, 64>(
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15,
    c16, c17, c18, c19, c20, c21, c22, c23, c24, c25, c26, c27, c28, c29, c30, c31,
    c32, c33, c34, c35, c36, c37, c38, c39, c40, c41, c42, c43, c44, c45, c46, c47,
    c48, c49, c50, c51, c52, c53, c54, c55, c56, c57, c58, c59, c60, c61, c62, c63,
  );
  for (var i = 0u; i < 64; i++) {
    let to = row / 16 * 16 + i / 32 * 16 + (lane ^ (i / 2 % 4)) * 4 + i / 8 % 4;
    store(to, column + i % 2 * 16, group.z, c[i]);
  }
}

// Where in a matrix (in vec4f) the four loads are that bring four lines of it, from this one on, with four steps of k.
// Lines past the end are read at the last ones, and not stored.
fn places(first: u32, line: u32, count: u32, stride: u32, across: bool) -> vec4u {
  if (across) { return (first + min(line + vec4u(0, 1, 2, 3), vec4u(count - 1)) * stride) / 4; }
  return (first + min(line, count - 4) + vec4u(0, 1, 2, 3) * stride) / 4;
}

// Columns of the result are rows of a, each with four steps of k.
fn rows(at: vec4u) -> mat4x4f {
  let x = mat4x4f(vec4f(a[at.x]), vec4f(a[at.y]), vec4f(a[at.z]), vec4f(a[at.w]));
  if (TRANSPOSE_A == 1) { return transpose(x); }
  return x;
}

// Columns of the result are steps of k, each with four columns of b.
fn columns(at: vec4u) -> mat4x4f {
  let z = mat4x4f(vec4f(b[at.x]), vec4f(b[at.y]), vec4f(b[at.z]), vec4f(b[at.w]));
  if (TRANSPOSE_B == 1) { return transpose(z); }
  return z;
}

// Adds eight steps of k of a row times four columns, element by element.
fn product(x: vec4f, u: vec4f, z: mat4x4f, w: mat4x4f, c: vec4f) -> vec4f {
  return vec4f(
    x.x * z[0].x + x.y * z[1].x + x.z * z[2].x + x.w * z[3].x +
      u.x * w[0].x + u.y * w[1].x + u.z * w[2].x + u.w * w[3].x + c.x,
    x.x * z[0].y + x.y * z[1].y + x.z * z[2].y + x.w * z[3].y +
      u.x * w[0].y + u.y * w[1].y + u.z * w[2].y + u.w * w[3].y + c.y,
    x.x * z[0].z + x.y * z[1].z + x.z * z[2].z + x.w * z[3].z +
      u.x * w[0].z + u.y * w[1].z + u.z * w[2].z + u.w * w[3].z + c.z,
    x.x * z[0].w + x.y * z[1].w + x.z * z[2].w + x.w * z[3].w +
      u.x * w[0].w + u.y * w[1].w + u.z * w[2].w + u.w * w[3].w + c.w,
  );
}

fn store(row: u32, column: u32, z: u32, value: vec4f) {
  if (row >= p.m || column >= p.n) { return; }
  let i = (start(p.out, z) + row * p.out.rowStride + column) / 4;
  var old = vec4f();
  if (p.accumulate == 1) { old = vec4f(y[i]); }
  y[i] = vec4<T1>(old + p.scale * value);
}
