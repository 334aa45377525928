// The gradient of attention without the score matrix, for processors that pose as GPUs and have subgroups, see
// attention_subgroup.wgsl. FlashAttention-2 (Dao, arXiv 2307.08691, algorithm 2): probabilities are computed again from the
// scores and the logarithms of their sums. There are no atomics for floats, so the gradient of the queries and that of keys
// and values are kernels of their own, which both compute them: 7 products of matrices where the score matrix saves 3.
enable subgroups;

#include "attention_problem"
#include "attention_subgroup_tile"

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

// Likewise of dout.
fn dout_block(i: u32, stride: u32, last: u32) -> mat4x4f {
  return mat4x4f(
    vec4f(dout[i]), vec4f(dout[i + min(1u, last) * stride]),
    vec4f(dout[i + min(2u, last) * stride]), vec4f(dout[i + min(3u, last) * stride]),
  );
}

// Four rows of a gradient, as far as there are rows.
fn store(value: mat4x4f, i: u32, stride: u32, rows: u32) {
  for (var r = 0u; r < min(rows, 4u); r++) { dqkv[i + r * stride] = vec4<T1>(value[r]); }
}

// Scores become the gradient of scores: four queries, of which `row` is the first of all rows of all heads.
fn gradient_of_rows(
  s: mat4x4f, dp: mat4x4f, logarithms: vec4f, mean: vec4f, position: u32, row: u32, keys: vec4u, valid: u32,
) -> mat4x4f {
  var g: mat4x4f;
  for (var r = 0u; r < 4u; r++) {
    let seen = keys < vec4u(seen_of(position + r, valid));
    let probability = exp2(LOG2_E * (p.scale * s[r] - logarithms[r]));
    var dprobability = dp[r];
    if (DROPOUT == 1u) { dprobability *= keeps(vec4u(row + r), keys); }
    g[r] = select(vec4f(0), p.scale * probability * (dprobability - mean[r]), seen); // 0 even where the mean is NaN
  }
  return g;
}

// Of four rows: those past the end take the last one's value and are not stored.
fn logs_of(start: u32, position: u32) -> vec4f {
  let i = start + min(position + vec4u(0, 1, 2, 3), vec4u(p.length - 1u));
  return vec4f(logs[i.x], logs[i.y], logs[i.z], logs[i.w]);
}

fn means_of(start: u32, position: u32) -> vec4f {
  let i = start + min(position + vec4u(0, 1, 2, 3), vec4u(p.length - 1u));
  return vec4f(means[i.x], means[i.y], means[i.z], means[i.w]);
}

@compute @workgroup_size(LANES)
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

  var qi: array<u32, ROWS / LANES>;
  var di: array<u32, ROWS / LANES>;
  for (var i = 0u; i < ROWS / LANES; i++) {
    let row = min(first + i * LANES + lane, p.length - 1u);
    qi[i] = qBase + row * stride;
    di[i] = dBase + row * rowLength;
  }
  var column: array<u32, 4>; // of the lane in each block; past the end the last one, which is not stored
  for (var b = 0u; b < BLOCKS; b++) { column[b] = min(b * LANES + lane, p.size - 1u); }
  var logarithm: Values;
  var mean: Values;
  #repeat r 0 8
    logarithm.c${r} = logs_of(rowBase, first + ${4 * r}u);
    mean.c${r} = means_of(rowBase, first + ${4 * r}u);
  #end

  var g0: Tile; var g1: Tile; var g2: Tile; var g3: Tile;
  for (var key = 0u; key < end; key += 4u * LANES) {
    let mine = min(key + 4u * lane, p.length - 1u);
    let past = p.length - 1u - mine;
    var s = Tile();
    var dp = Tile();
    for (var d = 0u; d < p.size; d++) {
      var x: Share;
      for (var i = 0u; i < ROWS / LANES; i++) { x[i] = vec4f(qkv[qi[i] + d]); }
      add_dots(&s, &x, block(kBase + mine * stride + d, stride, past));
      for (var i = 0u; i < ROWS / LANES; i++) { x[i] = vec4f(dout[di[i] + d]); }
      add_dots(&dp, &x, block(vBase + mine * stride + d, stride, past));
    }
    let keys = key + 4u * lane + vec4u(0, 1, 2, 3);
    let row = rowBase + first;
    #repeat r 0 8
      s.c${r} = gradient_of_rows(
        s.c${r}, dp.c${r}, logarithm.c${r}, mean.c${r}, first + ${4 * r}u, row + ${4 * r}u, keys, valid
      );
    #end
    for (var other = 0u; other < LANES && key + 4u * other < end; other++) {
      let last = p.length - 1u - (key + 4u * other);
      let ki = kBase + (key + 4u * other) * stride;
      add_weighted(&g0, &s, other, block(ki + column[0], stride, last));
      if (BLOCKS > 1u) { add_weighted(&g1, &s, other, block(ki + column[1], stride, last)); }
      if (BLOCKS > 2u) { add_weighted(&g2, &s, other, block(ki + column[2], stride, last)); }
      if (BLOCKS > 3u) { add_weighted(&g3, &s, other, block(ki + column[3], stride, last)); }
    }
  }

  var yi = qBase + first * stride + lane;
  for (var row = first; row < min(first + ROWS, p.length); row += 4u) {
    let left = p.length - row;
    if (lane < p.size) { store(g0.c0, yi, stride, left); }
    if (BLOCKS > 1u && lane + LANES < p.size) { store(g1.c0, yi + LANES, stride, left); }
    if (BLOCKS > 2u && lane + 2u * LANES < p.size) { store(g2.c0, yi + 2u * LANES, stride, left); }
    if (BLOCKS > 3u && lane + 3u * LANES < p.size) { store(g3.c0, yi + 3u * LANES, stride, left); }
    yi += 4u * stride;
    shift(&g0);
    if (BLOCKS > 1u) { shift(&g1); }
    if (BLOCKS > 2u) { shift(&g2); }
    if (BLOCKS > 3u) { shift(&g3); }
  }
}

// What a lane's four queries bring along.
struct Four {
  seen: vec4u, // keys that each sees, 0 past the last query
  logarithm: vec4f,
  mean: vec4f,
  row: vec4u, // of all rows of all heads
}

// Transposed scores, four keys from `key` on, become probabilities.
fn probabilities_of(s: mat4x4f, key: u32, four: Four) -> mat4x4f {
  var x: mat4x4f;
  for (var r = 0u; r < 4u; r++) {
    x[r] = select(vec4f(0), exp2(LOG2_E * (p.scale * s[r] - four.logarithm)), vec4u(key + r) < four.seen);
  }
  return x;
}

fn dropped(x: mat4x4f, key: u32, row: vec4u) -> mat4x4f {
  return mat4x4f(
    x[0] * keeps(row, vec4u(key)), x[1] * keeps(row, vec4u(key + 1u)),
    x[2] * keeps(row, vec4u(key + 2u)), x[3] * keeps(row, vec4u(key + 3u)),
  );
}

// The gradient of four keys' scores from their probabilities and the gradient of those.
fn gradient_of_keys(probability: mat4x4f, dp: mat4x4f, key: u32, four: Four) -> mat4x4f {
  var dprobability = dp;
  if (DROPOUT == 1u) { dprobability = dropped(dp, key, four.row); }
  var g: mat4x4f;
  for (var r = 0u; r < 4u; r++) {
    g[r] = select(vec4f(0), p.scale * probability[r] * (dprobability[r] - four.mean), vec4u(key + r) < four.seen);
  }
  return g;
}

// A workgroup takes 32 keys of one key head, and all the query heads that share it.
@compute @workgroup_size(LANES)
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
  let begin = select(0u, first / (4u * LANES) * (4u * LANES), p.causal != 0u);
  let end = select(0u, p.length, first < max(valid, 1u));

  var ki: array<u32, ROWS / LANES>;
  for (var i = 0u; i < ROWS / LANES; i++) { ki[i] = min(first + i * LANES + lane, p.length - 1u) * stride; }
  var column: array<u32, 4>;
  for (var b = 0u; b < BLOCKS; b++) { column[b] = min(b * LANES + lane, p.size - 1u); }

  var k0: Tile; var k1: Tile; var k2: Tile; var k3: Tile;
  var v0: Tile; var v1: Tile; var v2: Tile; var v3: Tile;
  for (var member = 0u; member < p.members; member++) {
    let queryHead = head * p.members + member;
    let qBase = sequence * p.length * stride + queryHead * p.size;
    let dBase = sequence * p.length * rowLength + queryHead * p.size;
    let rowBase = (sequence * p.heads + queryHead) * p.length;
    for (var query = begin; query < end; query += 4u * LANES) {
      let position = query + 4u * lane;
      let mine = min(position, p.length - 1u);
      let past = p.length - 1u - mine;
      var s = Tile();
      var dp = Tile();
      for (var d = 0u; d < p.size; d++) {
        var x: Share;
        for (var i = 0u; i < ROWS / LANES; i++) { x[i] = vec4f(qkv[kBase + ki[i] + d]); }
        add_dots(&s, &x, block(qBase + mine * stride + d, stride, past));
        for (var i = 0u; i < ROWS / LANES; i++) { x[i] = vec4f(qkv[vBase + ki[i] + d]); }
        add_dots(&dp, &x, dout_block(dBase + mine * rowLength + d, rowLength, past));
      }
      let positions = position + vec4u(0, 1, 2, 3);
      let seen = vec4u(
        seen_of(position, valid), seen_of(position + 1u, valid),
        seen_of(position + 2u, valid), seen_of(position + 3u, valid),
      );
      let four = Four(
        select(vec4u(0), seen, positions < vec4u(p.length)),
        logs_of(rowBase, position),
        means_of(rowBase, position),
        rowBase + positions,
      );
      #repeat r 0 8
        s.c${r} = probabilities_of(s.c${r}, first + ${4 * r}u, four);
      #end
      #repeat r 0 8
        dp.c${r} = gradient_of_keys(s.c${r}, dp.c${r}, first + ${4 * r}u, four);
      #end
      if (DROPOUT == 1u) {
        #repeat r 0 8
          s.c${r} = dropped(s.c${r}, first + ${4 * r}u, four.row);
        #end
      }
      for (var other = 0u; other < LANES && query + 4u * other < end; other++) {
        let from_query = query + 4u * other;
        let last = p.length - 1u - from_query;
        let di = dBase + from_query * rowLength;
        let qi = qBase + from_query * stride;
        add_weighted(&v0, &s, other, dout_block(di + column[0], rowLength, last));
        if (BLOCKS > 1u) { add_weighted(&v1, &s, other, dout_block(di + column[1], rowLength, last)); }
        if (BLOCKS > 2u) { add_weighted(&v2, &s, other, dout_block(di + column[2], rowLength, last)); }
        if (BLOCKS > 3u) { add_weighted(&v3, &s, other, dout_block(di + column[3], rowLength, last)); }
        add_weighted(&k0, &dp, other, block(qi + column[0], stride, last));
        if (BLOCKS > 1u) { add_weighted(&k1, &dp, other, block(qi + column[1], stride, last)); }
        if (BLOCKS > 2u) { add_weighted(&k2, &dp, other, block(qi + column[2], stride, last)); }
        if (BLOCKS > 3u) { add_weighted(&k3, &dp, other, block(qi + column[3], stride, last)); }
      }
    }
  }

  var yi = first * stride + lane;
  for (var row = first; row < min(first + ROWS, p.length); row += 4u) {
    let left = p.length - row;
    if (lane < p.size) {
      store(k0.c0, kBase + yi, stride, left);
      store(v0.c0, vBase + yi, stride, left);
    }
    if (BLOCKS > 1u && lane + LANES < p.size) {
      store(k1.c0, kBase + yi + LANES, stride, left);
      store(v1.c0, vBase + yi + LANES, stride, left);
    }
    if (BLOCKS > 2u && lane + 2u * LANES < p.size) {
      store(k2.c0, kBase + yi + 2u * LANES, stride, left);
      store(v2.c0, vBase + yi + 2u * LANES, stride, left);
    }
    if (BLOCKS > 3u && lane + 3u * LANES < p.size) {
      store(k3.c0, kBase + yi + 3u * LANES, stride, left);
      store(v3.c0, vBase + yi + 3u * LANES, stride, left);
    }
    yi += 4u * stride;
    shift(&k0); shift(&v0);
    if (BLOCKS > 1u) { shift(&k1); shift(&v1); }
    if (BLOCKS > 2u) { shift(&k2); shift(&v2); }
    if (BLOCKS > 3u) { shift(&k3); shift(&v3); }
  }
}
