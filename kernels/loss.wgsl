// Cross-entropy of logits, the plain reference: one invocation a row.
//   loss = logSumExp - logits[target],  dlogits = scale * (softmax - onehot(target))

struct Parameters {
  rows: u32,
  width: u32, // classes
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read> targets: array<u32>;

const WORKGROUP = 64u;
const BACKWARD_WORKGROUP = 256u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var highest = logits[start];
  for (var i = 1u; i < p.width; i++) { highest = max(highest, logits[start + i]); }
  var sum = 0.0;
  for (var i = 0u; i < p.width; i++) { sum += exp(logits[start + i] - highest); }
  let result = highest + log(sum);
  log_sum_exp[row] = result;
  losses[row] = result - logits[start + targets[row]];
}

@group(0) @binding(1) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(2) var<storage, read> logits_in: array<f32>;
@group(0) @binding(3) var<storage, read> log_sum_exp_in: array<f32>;
@group(0) @binding(4) var<storage, read> targets_in: array<u32>;

// One invocation an element, on every device.
@compute @workgroup_size(BACKWARD_WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * BACKWARD_WORKGROUP;
  let row = i / p.width;
  if (row >= p.rows) { return; }
  let hit = select(0.0, 1.0, i % p.width == targets_in[row]);
  dlogits[i] = p.scale * (exp(logits_in[i] - log_sum_exp_in[row]) - hit);
}
