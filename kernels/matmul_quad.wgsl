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

  #repeat i 0 64
    var c${i} = vec4f();
  #end
  for (var k = 0u; k < p.k / 4; k += 2) {
    let ai = k * aStep;
    let bi = k * bStep;
    let z0 = columns(b0 + bi);
    let z1 = columns(b0 + bi + bStep);
    let w0 = columns(b4 + bi);
    let w1 = columns(b4 + bi + bStep);

    // Eight rows of a, four by four: with the columns of this lane, then as its three neighbours have them.
    #define swap1 quadSwapX
    #define swap2 quadSwapY
    #define swap3 quadSwapDiagonal
    #repeat half 0 2
      #define first ${4 * half}
      let x${first} = rows(a${first} + ai);
      let u${first} = rows(a${first} + ai + aStep);
      #repeat j 0 4
        #define r ${first + j}
        c${8 * r} = product(x${first}[${j}], u${first}[${j}], z0, z1, c${8 * r});
        c${8 * r + 1} = product(x${first}[${j}], u${first}[${j}], w0, w1, c${8 * r + 1});
        #repeat n 1 4
          #define i ${8 * r + 2 * n}
          let x${r}${n} = ${swap${n}}(x${first}[${j}]);
          let u${r}${n} = ${swap${n}}(u${first}[${j}]);
          c${i} = product(x${r}${n}, u${r}${n}, z0, z1, c${i});
          c${i + 1} = product(x${r}${n}, u${r}${n}, w0, w1, c${i + 1});
        #end
      #end
    #end
  }

  var c = array<vec4f, 64>(
    #repeat i 0 64
      c${i},
    #end
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
