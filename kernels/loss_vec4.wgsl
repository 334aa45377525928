// Cross-entropy, four elements a load; the width divides by 4. See loss.wgsl.

struct Parameters {
  rows: u32,
  width: u32, // classes, in vec4s
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(3) var<storage, read> logits: array<vec4f>;
@group(0) @binding(4) var<storage, read> targets: array<u32>;

const WORKGROUP = 64u;
const BACKWARD_WORKGROUP = 256u;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let row = id.x + id.y * n.x * WORKGROUP;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var highest4 = logits[start];
  for (var i = 1u; i < p.width; i++) { highest4 = max(highest4, logits[start + i]); }
  let highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w));
  var sum = vec4f();
  for (var i = 0u; i < p.width; i++) { sum += exp(logits[start + i] - highest); }
  let result = highest + log(dot(sum, vec4f(1)));
  log_sum_exp[row] = result;
  let hit = targets[row];
  losses[row] = result - logits[start + hit / 4u][hit % 4u];
}

@group(0) @binding(1) var<storage, read_write> dlogits: array<vec4f>;
@group(0) @binding(2) var<storage, read> logits_in: array<vec4f>;
@group(0) @binding(3) var<storage, read> log_sum_exp_in: array<f32>;
@group(0) @binding(4) var<storage, read> targets_in: array<u32>;

@compute @workgroup_size(BACKWARD_WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * BACKWARD_WORKGROUP;
  let row = i / p.width;
  if (row >= p.rows) { return; }
  let columns = vec4u(4u * (i % p.width)) + vec4u(0, 1, 2, 3);
  let hit = select(vec4f(0), vec4f(1), columns == vec4u(targets_in[row]));
  dlogits[i] = p.scale * (exp(logits_in[i] - log_sum_exp_in[row]) - hit);
}
