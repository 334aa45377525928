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

#define source(name)
#define from(name)
#define load(i) vec4f(qkv[${i}])
#include "attention_workgroup_tile"

@compute @workgroup_size(128)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let head = group.y;
  let sequence = p.sequence + group.z;
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
      if (DROPOUT == 1u) { s[r] *= keeps(vec4u(rowBase + row + r), keys); }
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
