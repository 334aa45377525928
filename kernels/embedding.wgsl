// Token embedding. ids: [2, rows], see packIds() in lib/ops/embedding.ts: the token of each position, and behind all of
// them, for each position, the next position with the same token, with the top bit set if there is an earlier one.

struct Parameters {
  rows: u32,
  width: u32, // of the table's rows, in elements, or vec4s (forward4, backward_weight4)
}

alias T1 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<T1>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<T3>; // the table; backward_weight: dy

const COLUMNS = 1u;
const ROWS = 64u;
const LATER = 0x80000000u;
const END = 0x7fffffffu;

@compute @workgroup_size(COLUMNS, ROWS)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let start = ids[row] * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) { out[row * p.width + i] = T1(f32(values[start + i])); }
}

// Only a token's first position has work: it walks all positions of that token and adds up, so that no two invocations
// write one element and the order is always the same.
@compute @workgroup_size(COLUMNS, ROWS)
fn backward_weight(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows || (ids[p.rows + row] & LATER) != 0u) { return; }
  let start = ids[row] * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var sum = f32(out[start + i]);
    for (var at = row; at != END; at = ids[p.rows + at] & END) { sum += f32(values[at * p.width + i]); }
    out[start + i] = T1(sum);
  }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> out4: array<vec4<T1>>;
@group(0) @binding(3) var<storage, read> values4: array<vec4<T3>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn forward4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let start = ids[row] * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) { out4[row * p.width + i] = vec4<T1>(vec4f(values4[start + i])); }
}

@compute @workgroup_size(COLUMNS, ROWS)
fn backward_weight4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows || (ids[p.rows + row] & LATER) != 0u) { return; }
  let start = ids[row] * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var sum = vec4f(out4[start + i]);
    for (var at = row; at != END; at = ids[p.rows + at] & END) { sum += vec4f(values4[at * p.width + i]); }
    out4[start + i] = vec4<T1>(sum);
  }
}
