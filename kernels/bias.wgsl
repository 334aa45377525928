// A vector added to each row, in place.

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s (add4)
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> bias: array<T2>;

const COLUMNS = 1u;
const ROWS = 64u;

@compute @workgroup_size(COLUMNS, ROWS)
fn add(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) { y[start + i] = T1(f32(y[start + i]) + f32(bias[i])); }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4<T2>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn add4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    y4[start + i] = vec4<T1>(vec4f(y4[start + i]) + vec4f(bias4[i]));
  }
}
