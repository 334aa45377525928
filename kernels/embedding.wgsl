// Token embedding. ids: [2, rows], see packIds() in lib/ops/embedding.ts: the token of each position, and behind all of
// them, for each position, the next position with the same token, with the top bit set if there is an earlier one.

struct Parameters {
  rows: u32,
  width: u32, // of the table's rows, in elements (forward, backward_weight) or vec4s (forward4, backward_weight4)
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<f32>; // the table; backward_weight: dy

const WORKGROUP = 256u;
const LATER = 0x80000000u;
const END = 0x7fffffffu;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  let row = i / p.width;
  if (row >= p.rows) { return; }
  out[i] = values[ids[row] * p.width + i % p.width];
}

// One invocation for each column and position; only at a token's first position it has work: it walks all positions of
// that token and adds up, so that no two invocations write one element and the order is always the same.
@compute @workgroup_size(WORKGROUP)
fn backward_weight(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  let row = i / p.width;
  if (row >= p.rows || (ids[p.rows + row] & LATER) != 0u) { return; }
  let column = i % p.width;
  let at = ids[row] * p.width + column;
  var sum = out[at];
  for (var at_row = row; at_row != END; at_row = ids[p.rows + at_row] & END) { sum += values[at_row * p.width + column]; }
  out[at] = sum;
}

// The same, four columns an invocation.

@group(0) @binding(1) var<storage, read_write> out4: array<vec4f>;
@group(0) @binding(3) var<storage, read> values4: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn forward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  let row = i / p.width;
  if (row >= p.rows) { return; }
  out4[i] = values4[ids[row] * p.width + i % p.width];
}

@compute @workgroup_size(WORKGROUP)
fn backward_weight4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  let row = i / p.width;
  if (row >= p.rows || (ids[p.rows + row] & LATER) != 0u) { return; }
  let column = i % p.width;
  let at = ids[row] * p.width + column;
  var sum = out4[at];
  for (var at_row = row; at_row != END; at_row = ids[p.rows + at_row] & END) { sum += values4[at_row * p.width + column]; }
  out4[at] = sum;
}
