// Attention of tokens that come after others, over keys and values that are kept, for sequences that come piece by piece. The
// number of tokens before is read from a buffer, so that each token of a sequence is the same dispatch.
// A workgroup has one query head of one row, and goes over the keys 64 at a time: first its invocations have a key each, then
// features of the values. Sums and the highest score so far are carried along (Milakov and Gimelshein, arXiv 1805.02867).

struct Parameters {
  rows: u32, // new tokens
  heads: u32, // query heads
  members: u32, // query heads that share keys and values
  size: u32, // features of a head
  stride: u32, // of a row of qkv: query heads, key heads, value heads
  width: u32, // of a row that is kept: key heads, value heads
  scale: f32,
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

#include "not_finite"

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> qkv: array<T2>;
@group(0) @binding(3) var<storage, read> kept: array<T3>;
@group(0) @binding(4) var<storage, read> before: array<u32>; // [1]: tokens before the first row

const WORKGROUP = 64u;
const PER_LANE = 4u; // a head has WORKGROUP times as many features at most

const LOWEST = -3.4e38;

var<workgroup> weights: array<f32, WORKGROUP>;
var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn attend(
  @builtin(local_invocation_index) lane: u32,
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
) {
  let index = group.x + group.y * n.x;
  if (index >= p.rows * p.heads) { return; }
  let row = index / p.heads;
  let head = index % p.heads;
  let seen = before[0] + row + 1u;
  let query = row * p.stride + head * p.size;
  let keys = head / p.members * p.size;
  let values = p.width / 2u + keys;
  var sums: array<f32, PER_LANE>;
  var highest = LOWEST;
  var total = 0.0;
  for (var start = 0u; start < seen; start += WORKGROUP) {
    let key = start + lane;
    var score = LOWEST;
    if (key < seen) {
      score = 0.0;
      let at = key * p.width + keys;
      for (var i = 0u; i < p.size; i++) { score += f32(qkv[query + i]) * f32(kept[at + i]); }
      score *= p.scale;
    }
    partial[lane] = score;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
      if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
      workgroupBarrier();
    }
    let higher = max(highest, partial[0]);
    let fade = exp(highest - higher);
    highest = higher;
    weights[lane] = select(0.0, exp(score - higher), key < seen);
    workgroupBarrier();
    total *= fade;
    for (var i = 0u; i < PER_LANE; i++) { sums[i] *= fade; }
    let count = min(WORKGROUP, seen - start);
    for (var j = 0u; j < count; j++) {
      let weight = weights[j];
      total += weight;
      let at = (start + j) * p.width + values;
      for (var i = 0u; i < PER_LANE; i++) {
        let feature = lane + i * WORKGROUP;
        if (feature < p.size) { sums[i] += weight * f32(kept[at + feature]); }
      }
    }
    workgroupBarrier(); // all have read the weights before they are written again
  }
  // A NaN among the scores may end as an infinite sum; where all of them are minus infinity it is 0.
  let factor = nan_unless(1.0 / total, is_finite(total) && total > 0.0);
  for (var i = 0u; i < PER_LANE; i++) {
    let feature = lane + i * WORKGROUP;
    if (feature < p.size) { y[row * p.heads * p.size + head * p.size + feature] = T1(sums[i] * factor); }
  }
}

@group(0) @binding(3) var<storage, read> earlier: array<u32>; // `before`

// Keys and values of the new rows go behind those that are kept, which are y here.
@compute @workgroup_size(WORKGROUP)
fn append(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let count = p.rows * p.width;
  for (var i = id.x; i < count; i += n.x * WORKGROUP) {
    let row = i / p.width;
    let column = i % p.width;
    y[(earlier[0] + row) * p.width + column] = T1(f32(qkv[row * p.stride + p.stride - p.width + column]));
  }
}
