// Cross-entropy, gradient of the logits:  dlogits = scale * (softmax - onehot(target)),  0 where the target is IGNORED

struct Parameters {
  rows: u32,
  width: u32, // classes, or vec4s of them (backward4)
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> dlogits: array<T1>;
@group(0) @binding(2) var<storage, read> logits: array<T2>;
@group(0) @binding(3) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read> targets: array<u32>;
@group(0) @binding(5) var<storage, read> scale: array<f32>; // [1]

const COLUMNS = 1u;
const ROWS = 64u;
const IGNORED = 0xffffffffu;

@compute @workgroup_size(COLUMNS, ROWS)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let shift = log_sum_exp[row];
  let hit = targets[row];
  if (hit == IGNORED) {
    for (var i = lane.x; i < p.width; i += COLUMNS) { dlogits[start + i] = T1(0); }
    return;
  }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    dlogits[start + i] = T1(scale[0] * (exp(f32(logits[start + i]) - shift) - select(0.0, 1.0, i == hit)));
  }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> dlogits4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> logits4: array<vec4<T2>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn backward4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let shift = log_sum_exp[row];
  let hit = vec4u(targets[row]);
  if (hit.x == IGNORED) {
    for (var i = lane.x; i < p.width; i += COLUMNS) { dlogits4[start + i] = vec4<T1>(); }
    return;
  }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let onehot = select(vec4f(0), vec4f(1), 4u * i + vec4u(0, 1, 2, 3) == hit);
    dlogits4[start + i] = vec4<T1>(scale[0] * (exp(vec4f(logits4[start + i]) - shift) - onehot));
  }
}
