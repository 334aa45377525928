// The gradient of attention without the score matrix, for GPUs, see attention_workgroup.wgsl. FlashAttention-2 (Dao, arXiv
// 2307.08691, algorithm 2): probabilities are computed again from the scores and the logarithms of their sums. There are no
// atomics for floats, so the gradient of the queries and that of keys and values are kernels of their own.

#include "attention_problem"

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(1) var<storage, read_write> dqkv: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> logs: array<f32>; // [sequences, heads, length], as the forward left them
@group(0) @binding(5) var<storage, read> means: array<f32>; // likewise: dot products of out and dout
@group(0) @binding(6) var<storage, read> ends: array<u32>; // if padded: valid positions of each sequence
@group(0) @binding(7) var<storage, read> seed: array<u32>; // if DROPOUT

const BLOCKS = 1u; // of 32 features, 4 at most
const ROWS = 64u; // that a workgroup owns: queries, or keys
const COLUMNS = 32u; // of a tile of scores

// A row more than is used, of 17 and 9: neighbours then write to different banks. 15 KiB in all; every device has 16.
var<workgroup> weights: array<vec4f, 32 * 17>; // [column][row / 4], four rows each
var<workgroup> left: array<vec4f, 16 * 17>; // [feature][row / 4], four rows each; or [column][feature / 4]
var<workgroup> right: array<vec4f, 16 * 9>; // [feature][column / 4], four columns each

const QKV = 0u;
const DOUT = 1u;

fn take(source: u32, i: u32) -> vec4f {
  if (source == QKV) { return vec4f(qkv[i]); }
  return vec4f(dout[i]);
}

// Four rows of vec4s, `stride` apart and from `row` on: past the last row zeros, past the last feature too.
fn block(source: u32, start: u32, stride: u32, row: u32, feature: u32) -> mat4x4f {
  var x: mat4x4f;
  for (var r = 0u; r < 4u; r++) {
    if (row + r < p.length && feature < p.size) { x[r] = take(source, start + (row + r) * stride + feature); }
  }
  return x;
}

// Dot products of the 4 x 4 rows and columns of this invocation: `row` and `column` are the first ones of the workgroup's
// tile. A column of the result is a row.
fn dots(xSource: u32, x: u32, xStride: u32, row: u32, ySource: u32, y: u32, yStride: u32, column: u32, lane: u32) -> mat4x4f {
  var s: mat4x4f;
  for (var feature = 0u; feature < p.size; feature += 4u) {
    let group = lane / 4u;
    let d = lane % 4u;
    if (lane < 64u) {
      let t = transpose(block(xSource, x, xStride, row + 4u * group, feature + d));
      for (var i = 0u; i < 4u; i++) { left[(4u * d + i) * 17u + group] = t[i]; }
    } else if (lane < 96u) {
      let t = transpose(block(ySource, y, yStride, column + 4u * (group - 16u), feature + d));
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
  sums: ptr<function, array<mat4x4f, BLOCKS>>, source: u32, start: u32, stride: u32, column: u32, end: u32, lane: u32,
) {
  for (var b = 0u; b < BLOCKS; b++) {
    if (lane < 64u) {
      let t = block(source, start, stride, column + lane / 8u * 4u, 8u * b + lane % 8u);
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

// What dropout multiplies probabilities with, by rows of all rows of all heads, and keys.
fn kept(rows: vec4u, keys: vec4u) -> vec4f {
  let start = mix32(vec4u(seed[0] ^ p.salt)) + seed[1] * p.heads * p.length + rows;
  return select(vec4f(0), vec4f(p.keep), mix32(mix32(start) ^ (keys * 0x9e3779b9u)) >= vec4u(p.threshold));
}

// Four rows of a gradient, from `row` on, as far as there are rows and features.
fn store(sums: ptr<function, array<mat4x4f, BLOCKS>>, start: u32, stride: u32, row: u32, lane: u32) {
  for (var r = 0u; r < min(4u, p.length - min(row, p.length)); r++) {
    for (var b = 0u; b < BLOCKS; b++) {
      let feature = 8u * b + lane % 8u;
      if (feature < p.size) { dqkv[start + (row + r) * stride + feature] = vec4<T1>((*sums)[b][r]); }
    }
  }
}

@compute @workgroup_size(128)
fn queries(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let head = group.y;
  let sequence = group.z;
  let kvHeads = p.heads / p.members;
  let stride = (p.heads + 2u * kvHeads) * p.size;
  let rowLength = p.heads * p.size;
  let qBase = sequence * p.length * stride + head * p.size;
  let kBase = sequence * p.length * stride + (p.heads + head / p.members) * p.size;
  let vBase = kBase + kvHeads * p.size;
  let dBase = sequence * p.length * rowLength + head * p.size;
  let rowBase = (sequence * p.heads + head) * p.length;
  var valid = p.length;
  if (p.padded != 0u) { valid = ends[sequence]; }
  let end = seen_of(min(first + ROWS, p.length) - 1u, valid);
  let row = first + lane / 8u * 4u;
  var logarithm: vec4f;
  var mean: vec4f;
  for (var r = 0u; r < 4u; r++) {
    logarithm[r] = logs[rowBase + min(row + r, p.length - 1u)];
    mean[r] = means[rowBase + min(row + r, p.length - 1u)];
  }

  var sums: array<mat4x4f, BLOCKS>;
  for (var column = 0u; column < end; column += COLUMNS) {
    var s = dots(QKV, qBase, stride, first, QKV, kBase, stride, column, lane);
    let dp = dots(DOUT, dBase, rowLength, first, QKV, vBase, stride, column, lane);
    let keys = column + lane % 8u * 4u + vec4u(0, 1, 2, 3);
    for (var r = 0u; r < 4u; r++) {
      let seen = keys < vec4u(seen_of(row + r, valid));
      let probability = exp2(LOG2_E * (p.scale * s[r] - logarithm[r]));
      var dprobability = dp[r];
      if (DROPOUT == 1u) { dprobability *= kept(vec4u(rowBase + row + r), keys); }
      s[r] = select(vec4f(0), p.scale * probability * (dprobability - mean[r]), seen); // 0 even where the mean is NaN
    }
    share(s, lane);
    add_weighted(&sums, QKV, kBase, stride, column, end, lane);
  }
  store(&sums, qBase, stride, row, lane);
}

// A workgroup takes 64 keys of one key head, and all the query heads that share it.
@compute @workgroup_size(128)
fn keys(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let head = group.y;
  let sequence = group.z;
  let kvHeads = p.heads / p.members;
  let stride = (p.heads + 2u * kvHeads) * p.size;
  let rowLength = p.heads * p.size;
  let kBase = sequence * p.length * stride + (p.heads + head) * p.size;
  let vBase = kBase + kvHeads * p.size;
  var valid = p.length;
  if (p.padded != 0u) { valid = ends[sequence]; }
  let begin = select(0u, first, p.causal != 0u);
  let end = select(0u, p.length, first < max(valid, 1u));
  let key = first + lane / 8u * 4u;

  var dk: array<mat4x4f, BLOCKS>;
  var dv: array<mat4x4f, BLOCKS>;
  for (var member = 0u; member < p.members; member++) {
    let queryHead = head * p.members + member;
    let qBase = sequence * p.length * stride + queryHead * p.size;
    let dBase = sequence * p.length * rowLength + queryHead * p.size;
    let rowBase = (sequence * p.heads + queryHead) * p.length;
    for (var query = begin; query < end; query += COLUMNS) {
      var s = dots(QKV, kBase, stride, first, QKV, qBase, stride, query, lane);
      var ds = dots(QKV, vBase, stride, first, DOUT, dBase, rowLength, query, lane);
      let positions = query + lane % 8u * 4u + vec4u(0, 1, 2, 3);
      var seen: vec4u;
      var logarithm: vec4f;
      var mean: vec4f;
      for (var j = 0u; j < 4u; j++) {
        seen[j] = select(0u, seen_of(positions[j], valid), positions[j] < p.length);
        let at = rowBase + min(positions[j], p.length - 1u);
        logarithm[j] = logs[at];
        mean[j] = means[at];
      }
      for (var r = 0u; r < 4u; r++) {
        let sees = vec4u(key + r) < seen;
        let probability = select(vec4f(0), exp2(LOG2_E * (p.scale * s[r] - logarithm)), sees);
        var mask = vec4f(1);
        if (DROPOUT == 1u) { mask = kept(rowBase + positions, vec4u(key + r)); }
        s[r] = probability * mask;
        ds[r] = select(vec4f(0), p.scale * probability * (ds[r] * mask - mean), sees);
      }
      share(s, lane);
      add_weighted(&dv, DOUT, dBase, rowLength, query, end, lane);
      share(ds, lane);
      add_weighted(&dk, QKV, qBase, stride, query, end, lane);
    }
  }
  store(&dk, kBase, stride, key, lane);
  store(&dv, vBase, stride, key, lane);
}
