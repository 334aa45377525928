// Attention without the score matrix, for GPUs: tiles in workgroup memory. FlashAttention-2 (Dao, arXiv 2307.08691,
// algorithm 1): each workgroup goes over the keys once and keeps, for its queries, the largest score so far, the sum of the
// powers, and the output scaled by them.
//
// 128 invocations take 64 queries of one head, 32 keys at a time: 4 x 4 scores each, and four rows by four features of the
// output in each of BLOCKS blocks, so that two loads of four serve 16 multiplications. Not timed on a GPU yet; checked on
// lavapipe and SwiftShader.

#include "attention_problem"

alias T1 = f32;
alias T3 = f32;

@group(0) @binding(1) var<storage, read_write> out: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read_write> logs: array<f32>; // [sequences, heads, length]: of the sums of exponentials
@group(0) @binding(3) var<storage, read> qkv: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> ends: array<u32>; // if padded: valid positions of each sequence
@group(0) @binding(5) var<storage, read> seed: array<u32>; // if DROPOUT

const BLOCKS = 1u; // of 32 features, 4 at most
const ROWS = 64u; // that a workgroup owns: queries, or keys
const COLUMNS = 32u; // of a tile of scores

// A row more than is used, of 17 and 9: neighbours then write to different banks. 15 KiB in all; every device has 16.
var<workgroup> weights: array<vec4f, 32 * 17>; // [column][row / 4], four rows each
var<workgroup> left: array<vec4f, 16 * 17>; // [feature][row / 4], four rows each; or [column][feature / 4]
var<workgroup> right: array<vec4f, 16 * 9>; // [feature][column / 4], four columns each

// Four rows of vec4s, `stride` apart and from `row` on: past the last row zeros, past the last feature too.
fn block(start: u32, stride: u32, row: u32, feature: u32) -> mat4x4f {
  var x: mat4x4f;
  for (var r = 0u; r < 4u; r++) {
    if (row + r < p.length && feature < p.size) { x[r] = vec4f(qkv[start + (row + r) * stride + feature]); }
  }
  return x;
}

// Dot products of the 4 x 4 rows and columns of this invocation: `row` and `column` are the first ones of the workgroup's
// tile. A column of the result is a row.
fn dots(x: u32, xStride: u32, row: u32, y: u32, yStride: u32, column: u32, lane: u32) -> mat4x4f {
  var s: mat4x4f;
  for (var feature = 0u; feature < p.size; feature += 4u) {
    let group = lane / 4u;
    let d = lane % 4u;
    if (lane < 64u) {
      let t = transpose(block(x, xStride, row + 4u * group, feature + d));
      for (var i = 0u; i < 4u; i++) { left[(4u * d + i) * 17u + group] = t[i]; }
    } else if (lane < 96u) {
      let t = transpose(block(y, yStride, column + 4u * (group - 16u), feature + d));
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
  sums: ptr<function, array<mat4x4f, BLOCKS>>, start: u32, stride: u32, column: u32, end: u32, lane: u32,
) {
  for (var b = 0u; b < BLOCKS; b++) {
    if (lane < 64u) {
      let t = block(start, stride, column + lane / 8u * 4u, 8u * b + lane % 8u);
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

fn kept(x: vec4f, row: u32, keys: vec4u) -> vec4f {
  let start = mix32(vec4u(seed[0] ^ p.salt)) + seed[1] * p.heads * p.length + row;
  return x * select(vec4f(0), vec4f(p.keep), mix32(mix32(start) ^ (keys * 0x9e3779b9u)) >= vec4u(p.threshold));
}

@compute @workgroup_size(128)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let head = group.y;
  let sequence = group.z;
  let kvHeads = p.heads / p.members;
  let stride = (p.heads + 2u * kvHeads) * p.size;
  let qBase = sequence * p.length * stride + head * p.size;
  let kBase = sequence * p.length * stride + (p.heads + head / p.members) * p.size;
  let vBase = kBase + kvHeads * p.size;
  let rowBase = (sequence * p.heads + head) * p.length;
  var valid = p.length;
  if (p.padded != 0u) { valid = ends[sequence]; }
  let end = seen_of(min(first + ROWS, p.length) - 1u, valid);
  let row = first + lane / 8u * 4u;
  let factor = p.scale * LOG2_E;

  var sums: array<mat4x4f, BLOCKS>;
  var highest = vec4f(start_of(factor));
  var total = vec4f();
  for (var column = 0u; column < end; column += COLUMNS) {
    var s = dots(qBase, stride, first, kBase, stride, column, lane);
    let keys = column + lane % 8u * 4u + vec4u(0, 1, 2, 3);
    for (var r = 0u; r < 4u; r++) {
      s[r] = factor * select(vec4f(LOWEST), s[r], keys < vec4u(seen_of(row + r, valid)));
    }
    share(s, lane);
    workgroupBarrier();
    // The eight invocations of a row each find its largest score: cheaper than to meet once more.
    var now = highest;
    for (var i = 0u; i < min(COLUMNS, end - column); i++) { now = max(now, weights[i * 17u + lane / 8u]); }
    workgroupBarrier();
    let fade = exp2(highest - now);
    highest = now;
    total *= fade;
    for (var b = 0u; b < BLOCKS; b++) {
      for (var r = 0u; r < 4u; r++) { sums[b][r] *= fade[r]; }
    }
    for (var r = 0u; r < 4u; r++) {
      s[r] = exp2(s[r] - now[r]);
      total[r] += dot(s[r], vec4f(1)); // of this invocation's keys
      if (DROPOUT == 1u) { s[r] = kept(s[r], rowBase + row + r, keys); }
    }
    share(s, lane);
    add_weighted(&sums, vBase, stride, column, end, lane);
  }

  left[lane / 8u + lane % 8u * 17u] = total;
  workgroupBarrier();
  total = vec4f();
  for (var i = 0u; i < 8u; i++) { total += left[lane / 8u + i * 17u]; }
  let rowLength = p.heads * p.size;
  for (var r = 0u; r < min(4u, p.length - min(row, p.length)); r++) {
    if (lane % 8u == 0u) { logs[rowBase + row + r] = log_of(highest[r], total[r]); }
    for (var b = 0u; b < BLOCKS; b++) {
      let feature = 8u * b + lane % 8u;
      if (feature < p.size) {
        out[(sequence * p.length + row + r) * rowLength + head * p.size + feature] = vec4<T1>(sums[b][r] / total[r]);
      }
    }
  }
}
