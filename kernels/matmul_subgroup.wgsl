// Matrix multiplication for processors that pose as GPUs and have subgroups: registers and broadcasts, no barriers.
//
// A workgroup is one subgroup and makes a tile of 32 rows by 4 columns a lane. For four steps of k at a time each lane
// loads its share of the tile's 32 x 4 block of a; then every value is broadcast to all lanes, each of which owns its
// columns of b. Nothing is loaded twice.
//
// That is what counts: lavapipe loads lane by lane and component by component, 11 instructions a float with the bounds
// checks, uniform address or not, and that is four tenths of the time; products and sums take half. Tiles tried, rows by
// columns a lane, GFLOP/s at 512 x 512 x 512 on one thread of lavapipe, before the orders below were found:
//   8 lanes: 8 x 4 19.0, 16 x 2 19.7, 16 x 4 23.2, 16 x 8 24.1, 24 x 4 24.3, 32 x 4 27.5, 48 x 4 27.6
//   16 lanes: 16 x 4 22.0, 32 x 2 23.0, 48 x 2 23.8, 32 x 4 28.5, but 1.5 s to compile for 0.6
// 32 x 4 and 8 lanes since: 27 to 30, by transpose (24 to 27 before). It is at the edge of what a processor keeps of decoded
// instructions, so the same arithmetic in another order can be a sixth slower, and larger tiles are.
// With AVX2 code on the same processor, as LLVM was made to believe, the same within 6 %; 24 x 4 has 0.84 to 0.92 of that,
// 16 x 4 0.79 to 0.85, 48 x 4 0.72 to 0.99. It is no matter of registers: of 5,490 instructions a turn (5,651 with AVX-512)
// 1,024 are products and sums, and loads take half of the time. SHUFFLE has one instruction for three, 5,214 in all, for eight
// lanes and AVX2 alone: sixteen lanes 0.09 times the speed, SwiftShader 0.9. bench/README.md has its gain.
// Rejected: eight steps of k at a time 20.1, they spill; single elements for vec4f 15.7; fma() 22.3, it is made a product
// and a sum; a in a uniform buffer and no broadcasts 12, with broadcasts 27 at the cost of a dispatch for each 32 rows (all
// but the last two with 16 rows). The stores cost as much as 18 steps of k. SwiftShader: 3.6.
enable subgroups;

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> a: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<T3>>;
// The same buffers as single elements, for broadcastScalars.
@group(0) @binding(1) var<storage, read_write> ys: array<T1>;
@group(0) @binding(2) var<storage, read> xs: array<T2>;
@group(0) @binding(3) var<storage, read> zs: array<T3>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const LANES = 8u; // in a subgroup: 4, 8 or 16
const SHUFFLE = 0u; // 1: values of other lanes by subgroupShuffle
const ROWS = 32u; // of a tile
const SHARE = ROWS / LANES; // values of a that each lane loads for four steps of k
const STRIP = 4u; // tiles

// The tile's 32 x 4 block of a is dealt out to the lanes in turn, as 32 values: each four steps of k of one row or,
// where a is stored transposed, four rows of one step. Rows 4q to 4q + 3 are in the values q * QUAD + i * STEP, i < 4.
const QUAD = select(4u, 1u, TRANSPOSE_A == 1u);
const STEP = select(1u, ROWS / 4, TRANSPOSE_A == 1u);

// Where in a (in vec4f) a lane finds the value of this number at k = 0; rows past the end are read at the last one.
fn place(value: u32, row: u32, z: u32) -> u32 {
  let i = start(p.a, z);
  if (TRANSPOSE_A == 1) {
    return (i + value / (ROWS / 4) * p.a.rowStride + min(row + value % (ROWS / 4) * 4, p.m - 4)) / 4;
  }
  return (i + min(row + value, p.m - 1) * p.a.rowStride) / 4;
}

// Needs m (if a is transposed), n and k, offsets and strides divisible by 4.
@compute @workgroup_size(LANES)
fn broadcast(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  // Neighbouring workgroups go along the rows of a strip, whose part of b stays in the processor's cache.
  let across = (p.n + 4 * LANES - 1) / (4 * LANES);
  let down = (p.m + ROWS - 1) / ROWS;
  let tile = group.x + group.y * grid.x;
  if (tile >= across * down) { return; }
  let strip = tile / (down * STRIP) * STRIP;
  let width = min(STRIP, across - strip);
  let inside = tile - strip * down;
  let row = inside / width * ROWS;
  let column = (strip + inside % width) * 4 * LANES + lane * 4;

  var ai: array<u32, 8>;
  for (var i = 0u; i < SHARE; i++) { ai[i] = place(i * LANES + lane, row, group.z); }
  let aStep = select(1, p.a.rowStride, TRANSPOSE_A == 1);
  var ak = 0u;
  let bStride = p.b.rowStride / 4;
  var bi = start(p.b, group.z) / 4 + min(column, p.n - 4) / 4 * select(1, p.b.rowStride, TRANSPOSE_B == 1);
  let bs = bi + vec4u(0, 1, 2, 3) * bStride;
  var bk = 0u;

  #repeat r 0 32
    var c${r} = vec4f();
  #end
  for (var k = 0u; k < p.k; k += 4) {
    // Four steps of k of b are columns of z. The orders are what lavapipe makes the fastest code of: 27 to 30 GFLOP/s, where
    // most give 23 to 26.
    var x: array<vec4f, 8>;
    var z: mat4x4f;
    if (TRANSPOSE_A == 1) {
      let z0 = vec4f(b[bs.x + bk]);
      let z1 = vec4f(b[bs.y + bk]);
      for (var i = 0u; i < SHARE; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      let z2 = vec4f(b[bs.z + bk]);
      let z3 = vec4f(b[bs.w + bk]);
      z = mat4x4f(z0, z1, z2, z3);
      bk += select(4 * bStride, 1, TRANSPOSE_B == 1);
    } else if (TRANSPOSE_B == 1) {
      for (var i = 0u; i < SHARE / 4; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      let z0 = vec4f(b[bi]);
      let z1 = vec4f(b[bi + bStride]);
      let z2 = vec4f(b[bi + 2 * bStride]);
      let z3 = vec4f(b[bi + 3 * bStride]);
      for (var i = SHARE / 4; i < SHARE / 2; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      for (var i = SHARE / 2; i < SHARE * 3 / 4; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      for (var i = SHARE * 3 / 4; i < SHARE; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      z = mat4x4f(z0, z1, z2, z3);
      bi += 1;
    } else {
      for (var i = 0u; i < SHARE / 4; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      let z0 = vec4f(b[bi]);
      for (var i = SHARE / 4; i < SHARE / 2; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      let z1 = vec4f(b[bi + bStride]);
      for (var i = SHARE / 2; i < SHARE * 3 / 4; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      let z2 = vec4f(b[bi + 2 * bStride]);
      for (var i = SHARE * 3 / 4; i < SHARE; i++) { x[i] = vec4f(a[ai[i] + ak]); }
      z = mat4x4f(z0, z1, z2, vec4f(b[bi + 3 * bStride]));
      bi += 4 * bStride;
    }
    if (TRANSPOSE_B == 1) { z = transpose(z); }
    ak += aStep;

    #repeat q 0 8
      var x${q}: mat4x4f;
      if (SHUFFLE == 1) {
        x${q} = mat4x4f(
          #repeat i 0 4
            subgroupShuffle(x[(${q} * QUAD + ${i} * STEP) / LANES], (${q} * QUAD + ${i} * STEP) % LANES),
          #end
        );
      } else {
        x${q} = mat4x4f(
          #repeat i 0 4
            subgroupBroadcast(x[(${q} * QUAD + ${i} * STEP) / LANES], (${q} * QUAD + ${i} * STEP) % LANES),
          #end
        );
      }
      x${q} = turned(x${q});
      #repeat i 0 4
        c${4 * q + i} += z * x${q}[${i}];
      #end
    #end
  }

  if (column >= p.n) { return; }
  var yi = (start(p.out, group.z) + row * p.out.rowStride + column) / 4;
  let yStride = p.out.rowStride / 4;
  // Loops, though they have to move the sums about: with 16 stores written out it took 1.4 s to compile, so 0.4. Two of
  // them, since lavapipe takes every lane through the branches of both sides.
  if (p.accumulate == 0) {
    for (var r = row; r < min(row + ROWS, p.m); r += 4) {
      store(yi, r, c0);
      store(yi + yStride, r + 1, c1);
      store(yi + 2 * yStride, r + 2, c2);
      store(yi + 3 * yStride, r + 3, c3);
      yi += 4 * yStride;
      #repeat r 0 28
        c${r} = c${r + 4};
      #end
    }
  } else {
    for (var r = row; r < min(row + ROWS, p.m); r += 4) {
      addTo(yi, r, c0);
      addTo(yi + yStride, r + 1, c1);
      addTo(yi + 2 * yStride, r + 2, c2);
      addTo(yi + 3 * yStride, r + 3, c3);
      yi += 4 * yStride;
      #repeat r 0 28
        c${r} = c${r + 4};
      #end
    }
  }
}

// Columns of the result are rows, each with four steps of k.
fn turned(x: mat4x4f) -> mat4x4f {
  if (TRANSPOSE_A == 1) { return transpose(x); }
  return x;
}

fn store(i: u32, row: u32, value: vec4f) {
  if (row < p.m) { y[i] = vec4<T1>(p.scale * value); }
}

fn addTo(i: u32, row: u32, value: vec4f) {
  if (row < p.m) { y[i] = vec4<T1>(vec4f(y[i]) + p.scale * value); }
}

// Any sizes, strides and offsets: 16 rows by 4 columns a lane, one step of k and one element at a time.
@compute @workgroup_size(LANES)
fn broadcastScalars(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.n + 4 * LANES - 1) / (4 * LANES);
  let tile = group.x + group.y * grid.x;
  if (tile >= across * ((p.m + 15) / 16)) { return; }
  let row = tile / across * 16;
  let column = tile % across * 4 * LANES + lane; // and every LANES-th after it

  let rows = min(row + lane + vec4u(0, 1, 2, 3) * LANES, vec4u(p.m - 1));
  let columns = min(column + vec4u(0, 1, 2, 3) * LANES, vec4u(p.n - 1));
  var ai = start(p.a, group.z) + rows * select(p.a.rowStride, 1, TRANSPOSE_A == 1);
  var bi = start(p.b, group.z) + columns * select(1, p.b.rowStride, TRANSPOSE_B == 1);
  let aStep = select(1, p.a.rowStride, TRANSPOSE_A == 1);
  let bStep = select(p.b.rowStride, 1, TRANSPOSE_B == 1);

  #repeat r 0 16
    var c${r} = vec4f();
  #end
  for (var k = 0u; k < p.k; k++) {
    var x: array<f32, 4>;
    for (var i = 0u; i < 16 / LANES; i++) { x[i] = f32(xs[ai[i]]); }
    let z = vec4f(f32(zs[bi.x]), f32(zs[bi.y]), f32(zs[bi.z]), f32(zs[bi.w]));
    ai += vec4u(aStep);
    bi += vec4u(bStep);
    #repeat r 0 16
      if (SHUFFLE == 1) { c${r} += subgroupShuffle(x[${r} / LANES], ${r} % LANES) * z; }
      else { c${r} += subgroupBroadcast(x[${r} / LANES], ${r} % LANES) * z; }
    #end
  }

  var yi = start(p.out, group.z) + row * p.out.rowStride + column;
  for (var r = row; r < min(row + 16, p.m); r++) {
    for (var j = 0u; j < 4 && column + j * LANES < p.n; j++) {
      var old = 0.0;
      if (p.accumulate == 1) { old = f32(ys[yi + j * LANES]); }
      ys[yi + j * LANES] = T1(old + p.scale * c0[j]);
    }
    yi += p.out.rowStride;
    #repeat r 0 15
      c${r} = c${r + 1};
    #end
  }
}
