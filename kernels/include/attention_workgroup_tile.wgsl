// Tiles of 64 rows by 32 columns in workgroup memory, and their products. Blocks come from qkv, or, in a kernel that defines
// source(name), from(name) and load(i) so, from one of two buffers, whose number the functions are given.

const BLOCKS = 1u; // of 32 features, 4 at most
const ROWS = 64u; // that a workgroup owns: queries, or keys
const COLUMNS = 32u; // of a tile of scores

// A row more than is used, of 17 and 9: neighbours then write to different banks. 15 KiB in all; every device has 16.
var<workgroup> weights: array<vec4f, 32 * 17>; // [column][row / 4], four rows each
var<workgroup> left: array<vec4f, 16 * 17>; // [feature][row / 4], four rows each; or [column][feature / 4]
var<workgroup> right: array<vec4f, 16 * 9>; // [feature][column / 4], four columns each

// Four rows of vec4s, `stride` apart and from `row` on: past the last row zeros, past the last feature too.
fn block(${source(source)} start: u32, stride: u32, row: u32, feature: u32) -> mat4x4f {
  var x: mat4x4f;
  for (var r = 0u; r < 4u; r++) {
    if (row + r < p.length && feature < p.size) { x[r] = ${load(start + (row + r) * stride + feature)}; }
  }
  return x;
}

// Dot products of the 4 x 4 rows and columns of this invocation: `row` and `column` are the first ones of the workgroup's
// tile. A column of the result is a row.
fn dots(
  ${source(xSource)} x: u32, xStride: u32, row: u32, ${source(ySource)} y: u32, yStride: u32, column: u32, lane: u32
) -> mat4x4f {
  var s: mat4x4f;
  for (var feature = 0u; feature < p.size; feature += 4u) {
    let group = lane / 4u;
    let d = lane % 4u;
    if (lane < 64u) {
      let t = transpose(block(${from(xSource)} x, xStride, row + 4u * group, feature + d));
      for (var i = 0u; i < 4u; i++) { left[(4u * d + i) * 17u + group] = t[i]; }
    } else if (lane < 96u) {
      let t = transpose(block(${from(ySource)} y, yStride, column + 4u * (group - 16u), feature + d));
      for (var i = 0u; i < 4u; i++) { right[(4u * d + i) * 9u + group - 16u] = t[i]; }
    }
    workgroupBarrier();
    for (var i = 0u; i < min(16u, 4u * (p.size - feature)); i++) {
      let a = left[i * 17u + lane / 8u];
      let b = right[i * 9u + lane % 8u];
      s[0] += a[0] * b;
      s[1] += a[1] * b;
      s[2] += a[2] * b;
      s[3] += a[3] * b;
    }
    workgroupBarrier();
  }
  return s;
}

// Puts this invocation's part of a tile of weights where add_weighted() finds it.
fn share(s: mat4x4f, lane: u32) {
  let t = transpose(s);
  for (var i = 0u; i < 4u; i++) { weights[(lane % 8u * 4u + i) * 17u + lane / 8u] = t[i]; }
}

// Four rows' weights times the rows of the tile's columns, of which this invocation makes four features in each block.
fn add_weighted(
  sums: ptr<function, array<mat4x4f, BLOCKS>>, ${source(source)} start: u32, stride: u32, column: u32, end: u32, lane: u32,
) {
  for (var b = 0u; b < BLOCKS; b++) {
    if (lane < 64u) {
      let t = block(${from(source)} start, stride, column + lane / 8u * 4u, 8u * b + lane % 8u);
      for (var i = 0u; i < 4u; i++) { left[(lane / 8u * 4u + i) * 8u + lane % 8u] = t[i]; }
    }
    workgroupBarrier(); // for the weights, too
    var sum = (*sums)[b];
    for (var i = 0u; i < min(COLUMNS, end - column); i++) {
      let w = weights[i * 17u + lane / 8u];
      let x = left[i * 8u + lane % 8u];
      sum[0] += w[0] * x;
      sum[1] += w[1] * x;
      sum[2] += w[2] * x;
      sum[3] += w[3] * x;
    }
    (*sums)[b] = sum;
    workgroupBarrier();
  }
}
