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

const QKV = 0u;
const DOUT = 1u;

fn take(source: u32, i: u32) -> vec4f {
  if (source == QKV) { return vec4f(qkv[i]); }
  return vec4f(dout[i]);
}

#define source(name) ${name}: u32,
#define from(name) ${name},
#define load(i) take(source, ${i})
#include "attention_workgroup_tile"

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
  let sequence = p.sequence + group.z;
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
      if (DROPOUT == 1u) { dprobability *= keeps(vec4u(rowBase + row + r), keys); }
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
  let sequence = p.sequence + group.z;
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
        if (DROPOUT == 1u) { mask = keeps(rowBase + positions, vec4u(key + r)); }
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
