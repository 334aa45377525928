// Attention without the score matrix, for processors that pose as GPUs and have subgroups: registers and shuffles only.
// FlashAttention-2 (Dao, arXiv 2307.08691, algorithm 1): each workgroup goes over the keys once and keeps, for its queries,
// the largest score so far, the sum of the powers, and the output scaled by them.
//
// A workgroup is one subgroup and takes 32 queries of one head. Scores lie in registers, 32 rows by four keys a lane; so
// does the output, 32 rows by four features a lane in each of BLOCKS blocks. A row that another lane holds comes by
// shuffle, one instruction with 8 lanes.
//
// Milliseconds on lavapipe (2 cores, 8 lanes), composed way / this, sequences x length, heads x size; F, then I
// (attention_subgroup_backward.wgsl):
//   causal  8 x 64, 4 x 32    1.3 / 0.8    2.6 / 3.4      4 x 128, 8 x 64   8.2 / 5.1   14.2 / 19.4
//           4 x 128, 8 x 32   4.7 / 2.4    8.3 / 10.1     4 x 256, 8 x 64  33.4 / 18.1  56.3 / 67.2
//           4 x 256, 8 x 32  20.2 / 8.6   32.2 / 32.9     4 x 512, 8 x 32  75.9 / 29.9   160 / 187 (noisy)
//   whole   4 x 128, 8 x 32   5.2 / 3.5    9.1 / 14.6     4 x 256, 8 x 64  34.7 / 28.8  61.1 / 119
// Hence the rule in lib/ops/usual.ts. It takes 2 s to compile, the backward 4 s. Two lanes' keys a step of the second
// loop are no faster. A `var` in a loop is not zero again in the next turn here, whatever WGSL says: it is set.
enable subgroups;

#include "attention_problem"
#include "attention_subgroup_tile"

alias T1 = f32;
alias T3 = f32;

@group(0) @binding(1) var<storage, read_write> out: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read_write> logs: array<f32>; // [sequences, heads, length]: of the sums of exponentials
@group(0) @binding(3) var<storage, read> qkv: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> ends: array<u32>; // if padded: valid positions of each sequence
@group(0) @binding(5) var<storage, read> seed: array<u32>; // if DROPOUT

// Scores of keys that a row does not see become the lowest.
fn masked(s: mat4x4f, row: u32, keys: vec4u, valid: u32) -> mat4x4f {
  return mat4x4f(
    select(vec4f(LOWEST), s[0], keys < vec4u(seen_of(row, valid))),
    select(vec4f(LOWEST), s[1], keys < vec4u(seen_of(row + 1u, valid))),
    select(vec4f(LOWEST), s[2], keys < vec4u(seen_of(row + 2u, valid))),
    select(vec4f(LOWEST), s[3], keys < vec4u(seen_of(row + 3u, valid))),
  );
}

// Scores become powers of 2 below the largest of their row; returns what earlier powers are to be scaled with.
fn soften(s: ptr<function, mat4x4f>, highest: ptr<function, vec4f>, sum: ptr<function, vec4f>) -> vec4f {
  let factor = p.scale * LOG2_E;
  let t = transpose(*s);
  let now = max(*highest, factor * subgroupMax(max(max(t[0], t[1]), max(t[2], t[3]))));
  let fade = exp2(*highest - now);
  let e = mat4x4f(
    exp2(factor * (*s)[0] - now[0]), exp2(factor * (*s)[1] - now[1]),
    exp2(factor * (*s)[2] - now[2]), exp2(factor * (*s)[3] - now[3]),
  );
  *s = e;
  *highest = now;
  *sum = *sum * fade + vec4f(1) * e;
  return fade;
}

fn scaled(x: mat4x4f, by: vec4f) -> mat4x4f {
  return mat4x4f(x[0] * by[0], x[1] * by[1], x[2] * by[2], x[3] * by[3]);
}

fn scale_rows(t: ptr<function, Tile>, by: ptr<function, Values>) {
  #repeat r 0 8
    (*t).c${r} = scaled((*t).c${r}, (*by).c${r});
  #end
}

// Four rows, from `row` of all rows of all heads on, with those keys left out that dropout takes.
fn dropped(s: mat4x4f, row: u32, keys: vec4u) -> mat4x4f {
  return mat4x4f(
    s[0] * keeps(vec4u(row), keys), s[1] * keeps(vec4u(row + 1u), keys),
    s[2] * keeps(vec4u(row + 2u), keys), s[3] * keeps(vec4u(row + 3u), keys),
  );
}

// Four rows of the output, as far as there are rows and columns.
fn store(value: mat4x4f, i: u32, stride: u32, rows: u32) {
  for (var r = 0u; r < min(rows, 4u); r++) { out[i + r * stride] = vec4<T1>(value[r]); }
}

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let head = group.y;
  let sequence = p.sequence + group.z;
  let kvHeads = p.heads / p.members;
  let stride = (p.heads + 2u * kvHeads) * p.size;
  let qBase = sequence * p.length * stride + head * p.size;
  let kBase = sequence * p.length * stride + (p.heads + head / p.members) * p.size;
  let vBase = kBase + kvHeads * p.size;
  var valid = p.length;
  if (p.padded != 0u) { valid = ends[sequence]; }
  let end = seen_of(min(first + ROWS, p.length) - 1u, valid);
  let allSee = seen_of(first, valid);

  var qi: array<u32, ROWS / LANES>;
  for (var i = 0u; i < ROWS / LANES; i++) { qi[i] = qBase + min(first + i * LANES + lane, p.length - 1u) * stride; }
  var column: array<u32, 4>; // of the lane in each block; past the end the last one, which is not stored
  for (var b = 0u; b < BLOCKS; b++) { column[b] = min(b * LANES + lane, p.size - 1u); }

  var o0: Tile; var o1: Tile; var o2: Tile; var o3: Tile;
  let low = vec4f(start_of(p.scale * LOG2_E));
  var highest = Values(low, low, low, low, low, low, low, low);
  var sum: Values;
  for (var key = 0u; key < end; key += 4u * LANES) {
    let mine = min(key + 4u * lane, p.length - 1u);
    let ki = kBase + mine * stride;
    var s = Tile();
    for (var d = 0u; d < p.size; d++) {
      var x: Share;
      for (var i = 0u; i < ROWS / LANES; i++) { x[i] = vec4f(qkv[qi[i] + d]); }
      add_dots(&s, &x, block(ki + d, stride, p.length - 1u - mine));
    }
    let keys = key + 4u * lane + vec4u(0, 1, 2, 3);
    if (key + 4u * LANES > allSee) {
      #repeat r 0 8
        s.c${r} = masked(s.c${r}, first + ${4 * r}u, keys, valid);
      #end
    }
    var fade: Values;
    #repeat r 0 8
      fade.c${r} = soften(&s.c${r}, &highest.c${r}, &sum.c${r});
    #end
    scale_rows(&o0, &fade);
    if (BLOCKS > 1u) { scale_rows(&o1, &fade); }
    if (BLOCKS > 2u) { scale_rows(&o2, &fade); }
    if (BLOCKS > 3u) { scale_rows(&o3, &fade); }
    if (DROPOUT == 1u) {
      let row = (sequence * p.heads + head) * p.length + first;
      #repeat r 0 8
        s.c${r} = dropped(s.c${r}, row + ${4 * r}u, keys);
      #end
    }
    for (var other = 0u; other < LANES && key + 4u * other < end; other++) {
      let last = p.length - 1u - (key + 4u * other);
      let vi = vBase + (key + 4u * other) * stride;
      add_weighted(&o0, &s, other, block(vi + column[0], stride, last));
      if (BLOCKS > 1u) { add_weighted(&o1, &s, other, block(vi + column[1], stride, last)); }
      if (BLOCKS > 2u) { add_weighted(&o2, &s, other, block(vi + column[2], stride, last)); }
      if (BLOCKS > 3u) { add_weighted(&o3, &s, other, block(vi + column[3], stride, last)); }
    }
  }

  let rowLength = p.heads * p.size;
  var yi = (sequence * p.length + first) * rowLength + head * p.size + lane;
  let li = (sequence * p.heads + head) * p.length;
  for (var row = first; row < min(first + ROWS, p.length); row += 4u) {
    let total = subgroupAdd(sum.c0);
    let left = p.length - row;
    if (lane < min(4u, left)) { logs[li + row + lane] = log_of(highest.c0[lane], total[lane]); }
    if (lane < p.size) { store(scaled(o0.c0, 1.0 / total), yi, rowLength, left); }
    if (BLOCKS > 1u && lane + LANES < p.size) { store(scaled(o1.c0, 1.0 / total), yi + LANES, rowLength, left); }
    if (BLOCKS > 2u && lane + 2u * LANES < p.size) { store(scaled(o2.c0, 1.0 / total), yi + 2u * LANES, rowLength, left); }
    if (BLOCKS > 3u && lane + 3u * LANES < p.size) { store(scaled(o3.c0, 1.0 / total), yi + 3u * LANES, rowLength, left); }
    yi += 4u * rowLength;
    shift(&o0);
    if (BLOCKS > 1u) { shift(&o1); }
    if (BLOCKS > 2u) { shift(&o2); }
    if (BLOCKS > 3u) { shift(&o3); }
    #repeat r 0 7
      highest.c${r} = highest.c${r + 1};
    #end
    #repeat r 0 7
      sum.c${r} = sum.c${r + 1};
    #end
  }
}
