// Matrix multiplication in registers alone: no subgroups, no workgroup memory, no barriers. For processors that pose as
// GPUs and have no subgroups.
//
// Each invocation makes 8 rows by 8 columns, four steps of k at a time. GFLOP/s at 256 x 256 x 256 on one thread:
// SwiftShader 4 x 4 2.2, 8 x 4 and 4 x 8 2.8, 8 x 8 3.7, no more and no less than matmul_subgroup.wgsl; lavapipe (8
// lanes) 4 x 4 6.6, 8 x 8 8.5. The size of the workgroup makes no difference; 16 wastes least at the edges.

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> a: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<T3>>;

// The same buffers as single elements, for scalars.
@group(0) @binding(1) var<storage, read_write> ys: array<T1>;
@group(0) @binding(2) var<storage, read> xs: array<T2>;
@group(0) @binding(3) var<storage, read> zs: array<T3>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const ROWS = 32u; // of a workgroup's tile: 4 x 4 invocations
const COLUMNS = 32u; // scalars has half as many of each

// Needs m (if a is transposed), n and k, offsets and strides divisible by 4.
@compute @workgroup_size(16)
fn vectors(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.n + COLUMNS - 1) / COLUMNS;
  let tile = group.x + group.y * grid.x;
  let row = tile / across * ROWS + lane / 4 * 8;
  let column = tile % across * COLUMNS + lane % 4 * 8;
  if (row >= p.m || column >= p.n) { return; }

  // In vec4f. Rows and columns past the end are read at the last ones, and not stored.
  let aStride = p.a.rowStride / 4;
  let bStride = p.b.rowStride / 4;
  var ai = start(p.a, group.z) / 4;
  var bi = start(p.b, group.z) / 4;
  var at: array<u32, 8>; // rows of a; with a transposed the first two hold rows 0 to 3 and 4 to 7
  var bt: array<u32, 8>; // columns of b likewise
  for (var i = 0u; i < 8; i++) {
    if (TRANSPOSE_A == 1) { at[i] = min(row + i * 4, p.m - 4) / 4; } else { at[i] = min(row + i, p.m - 1) * aStride; }
    if (TRANSPOSE_B == 1) { bt[i] = min(column + i, p.n - 1) * bStride; }
    else { bt[i] = min(column + i * 4, p.n - 4) / 4; }
  }

  // c: the sums of the left four columns, row by row; d: of the right four.
  #repeat r 0 8
    var c${r} = vec4f(); var d${r} = vec4f();
  #end
  for (var k = 0u; k < p.k; k += 4) {
    // 4 x 4 blocks of b: columns of z and w are steps of k or, where b is stored transposed, columns of b.
    var z: mat4x4f;
    var w: mat4x4f;
    if (TRANSPOSE_B == 1) {
      z = mat4x4f(vec4f(b[bi + bt[0]]), vec4f(b[bi + bt[1]]), vec4f(b[bi + bt[2]]), vec4f(b[bi + bt[3]]));
      w = mat4x4f(vec4f(b[bi + bt[4]]), vec4f(b[bi + bt[5]]), vec4f(b[bi + bt[6]]), vec4f(b[bi + bt[7]]));
      bi += 1;
    } else {
      let i = vec4u(bi) + vec4u(0, 1, 2, 3) * bStride;
      z = mat4x4f(vec4f(b[i.x + bt[0]]), vec4f(b[i.y + bt[0]]), vec4f(b[i.z + bt[0]]), vec4f(b[i.w + bt[0]]));
      w = mat4x4f(vec4f(b[i.x + bt[1]]), vec4f(b[i.y + bt[1]]), vec4f(b[i.z + bt[1]]), vec4f(b[i.w + bt[1]]));
      bi += 4 * bStride;
    }
    var x: mat4x4f; // columns are rows of a, with four steps of k each
    if (TRANSPOSE_A == 1) {
      let i = vec4u(ai) + vec4u(0, 1, 2, 3) * aStride;
      x = transpose(mat4x4f(vec4f(a[i.x + at[0]]), vec4f(a[i.y + at[0]]), vec4f(a[i.z + at[0]]), vec4f(a[i.w + at[0]])));
    } else { x = mat4x4f(vec4f(a[ai + at[0]]), vec4f(a[ai + at[1]]), vec4f(a[ai + at[2]]), vec4f(a[ai + at[3]])); }
    c0 += product(x[0], z); d0 += product(x[0], w);
    c1 += product(x[1], z); d1 += product(x[1], w);
    c2 += product(x[2], z); d2 += product(x[2], w);
    c3 += product(x[3], z); d3 += product(x[3], w);
    if (TRANSPOSE_A == 1) {
      let i = vec4u(ai) + vec4u(0, 1, 2, 3) * aStride;
      x = transpose(mat4x4f(vec4f(a[i.x + at[1]]), vec4f(a[i.y + at[1]]), vec4f(a[i.z + at[1]]), vec4f(a[i.w + at[1]])));
      ai += 4 * aStride;
    } else {
      x = mat4x4f(vec4f(a[ai + at[4]]), vec4f(a[ai + at[5]]), vec4f(a[ai + at[6]]), vec4f(a[ai + at[7]]));
      ai += 1;
    }
    c4 += product(x[0], z); d4 += product(x[0], w);
    c5 += product(x[1], z); d5 += product(x[1], w);
    c6 += product(x[2], z); d6 += product(x[2], w);
    c7 += product(x[3], z); d7 += product(x[3], w);
  }

  let yi = start(p.out, group.z) + column;
  // A loop, though it has to move the sums about: stores written out took lavapipe 1.4 s to compile, this 0.8.
  for (var r = row; r < min(row + 8, p.m); r++) {
    store(yi + r * p.out.rowStride, c0);
    if (column + 4 < p.n) { store(yi + r * p.out.rowStride + 4, d0); }
    c0 = c1; c1 = c2; c2 = c3; c3 = c4; c4 = c5; c5 = c6; c6 = c7;
    d0 = d1; d1 = d2; d2 = d3; d3 = d4; d4 = d5; d5 = d6; d6 = d7;
  }
}

// One row's four steps of k times a 4 x 4 block of b.
fn product(x: vec4f, z: mat4x4f) -> vec4f {
  if (TRANSPOSE_B == 1) { return x * z; }
  return z * x;
}

fn store(element: u32, value: vec4f) {
  var old = vec4f();
  if (p.accumulate == 1) { old = vec4f(y[element / 4]); }
  y[element / 4] = vec4<T1>(old + p.scale * value);
}

// Any sizes, strides and offsets: 4 x 4 an invocation, one step of k and one element at a time.
@compute @workgroup_size(16)
fn scalars(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.n + COLUMNS / 2 - 1) / (COLUMNS / 2);
  let tile = group.x + group.y * grid.x;
  let row = tile / across * ROWS / 2 + lane / 4 * 4;
  let column = tile % across * COLUMNS / 2 + lane % 4 * 4;
  if (row >= p.m || column >= p.n) { return; }

  let rows = min(row + vec4u(0, 1, 2, 3), vec4u(p.m - 1));
  let columns = min(column + vec4u(0, 1, 2, 3), vec4u(p.n - 1));
  var ai = start(p.a, group.z) + rows * select(p.a.rowStride, 1, TRANSPOSE_A == 1);
  var bi = start(p.b, group.z) + columns * select(1, p.b.rowStride, TRANSPOSE_B == 1);
  let aStep = select(1, p.a.rowStride, TRANSPOSE_A == 1);
  let bStep = select(p.b.rowStride, 1, TRANSPOSE_B == 1);
  var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
  for (var k = 0u; k < p.k; k++) {
    let z = vec4f(f32(zs[bi.x]), f32(zs[bi.y]), f32(zs[bi.z]), f32(zs[bi.w]));
    c0 += f32(xs[ai.x]) * z;
    c1 += f32(xs[ai.y]) * z;
    c2 += f32(xs[ai.z]) * z;
    c3 += f32(xs[ai.w]) * z;
    ai += vec4u(aStep);
    bi += vec4u(bStep);
  }

  let yi = start(p.out, group.z);
  for (var r = row; r < min(row + 4, p.m); r++) {
    for (var j = 0u; j < min(4, p.n - column); j++) {
      let i = yi + r * p.out.rowStride + column + j;
      var old = 0.0;
      if (p.accumulate == 1) { old = f32(ys[i]); }
      ys[i] = T1(old + p.scale * c0[j]);
    }
    c0 = c1; c1 = c2; c2 = c3;
  }
}
