// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g * sigmoid(g); a row is [gate | up].

struct Parameters {
  rows: u32,
  width: u32, // of out, in elements, or vec4s (forward4, backward4)
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<T1>;
@group(0) @binding(2) var<storage, read> gate_up: array<T2>;

const COLUMNS = 1u;
const ROWS = 64u;

@compute @workgroup_size(COLUMNS, ROWS)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = 2u * row * p.width + i;
    let gate = f32(gate_up[at]);
    out[row * p.width + i] = T1(gate / (1.0 + exp(-gate)) * f32(gate_up[at + p.width]));
  }
}

@group(0) @binding(1) var<storage, read_write> dgate_up: array<T1>;
@group(0) @binding(2) var<storage, read> dout: array<T2>;
@group(0) @binding(3) var<storage, read> gate_up_in: array<T3>;

// silu'(g) = sigmoid(g) * (1 + g * (1 - sigmoid(g)))
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = 2u * row * p.width + i;
    let gate = f32(gate_up_in[at]);
    let sigmoid = 1.0 / (1.0 + exp(-gate));
    let along = f32(dout[row * p.width + i]) * sigmoid;
    dgate_up[at] = T1(along * f32(gate_up_in[at + p.width]) * (1.0 + gate * (1.0 - sigmoid)));
    dgate_up[at + p.width] = T1(along * gate);
  }
}

// The same, four elements a step.

@group(0) @binding(1) var<storage, read_write> out4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> gate_up4: array<vec4<T2>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn forward4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = 2u * row * p.width + i;
    let gate = vec4f(gate_up4[at]);
    out4[row * p.width + i] = vec4<T1>(gate / (1.0 + exp(-gate)) * vec4f(gate_up4[at + p.width]));
  }
}

@group(0) @binding(1) var<storage, read_write> dgate_up4: array<vec4<T1>>;
@group(0) @binding(2) var<storage, read> dout4: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> gate_up_in4: array<vec4<T3>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn backward4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let row = (group.x + group.y * n.x) * ROWS + lane.y;
  if (row >= p.rows) { return; }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = 2u * row * p.width + i;
    let gate = vec4f(gate_up_in4[at]);
    let sigmoid = 1.0 / (1.0 + exp(-gate));
    let along = vec4f(dout4[row * p.width + i]) * sigmoid;
    dgate_up4[at] = vec4<T1>(along * vec4f(gate_up_in4[at + p.width]) * (1.0 + gate * (1.0 - sigmoid)));
    dgate_up4[at + p.width] = vec4<T1>(along * gate);
  }
}
