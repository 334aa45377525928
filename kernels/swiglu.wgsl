// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g * sigmoid(g); a row is [gate | up].

struct Parameters {
  count: u32, // of out's elements (forward, backward) or vec4s (forward4, backward4)
  width: u32, // of out's rows, likewise
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read> gate_up: array<f32>;

const WORKGROUP = 256u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i >= p.count) { return; }
  let at = i + i / p.width * p.width;
  let gate = gate_up[at];
  out[i] = gate / (1.0 + exp(-gate)) * gate_up[at + p.width];
}

@group(0) @binding(1) var<storage, read_write> dgate_up: array<f32>;
@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read> gate_up_in: array<f32>;

// silu'(g) = sigmoid(g) * (1 + g * (1 - sigmoid(g)))
@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i >= p.count) { return; }
  let at = i + i / p.width * p.width;
  let gate = gate_up_in[at];
  let sigmoid = 1.0 / (1.0 + exp(-gate));
  let along = dout[i] * sigmoid;
  dgate_up[at] = along * gate_up_in[at + p.width] * (1.0 + gate * (1.0 - sigmoid));
  dgate_up[at + p.width] = along * gate;
}

// The same, four elements an invocation.

@group(0) @binding(1) var<storage, read_write> out4: array<vec4f>;
@group(0) @binding(2) var<storage, read> gate_up4: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn forward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i >= p.count) { return; }
  let at = i + i / p.width * p.width;
  let gate = gate_up4[at];
  out4[i] = gate / (1.0 + exp(-gate)) * gate_up4[at + p.width];
}

@group(0) @binding(1) var<storage, read_write> dgate_up4: array<vec4f>;
@group(0) @binding(2) var<storage, read> dout4: array<vec4f>;
@group(0) @binding(3) var<storage, read> gate_up_in4: array<vec4f>;

@compute @workgroup_size(WORKGROUP)
fn backward4(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i >= p.count) { return; }
  let at = i + i / p.width * p.width;
  let gate = gate_up_in4[at];
  let sigmoid = 1.0 / (1.0 + exp(-gate));
  let along = dout4[i] * sigmoid;
  dgate_up4[at] = along * gate_up_in4[at + p.width] * (1.0 + gate * (1.0 - sigmoid));
  dgate_up4[at + p.width] = along * gate;
}
