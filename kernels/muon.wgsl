// The steps of Muon (Jordan et al. 2024) around its products of matrices: momentum, a norm of 1 to begin with, and the update.

struct Parameters {
  count: u32, // elements; of `turn` vec4s
  momentum: f32,
  rest: f32, // 1 - momentum, from the host
  epsilon: f32, // the least that a norm is taken for
  factor: f32, // of the learning rate, by the matrix's shape
  decay: f32,
}

// As in optimizers.wgsl.
struct Step {
  rate: f32,
  unused0: f32,
  unused1: f32,
  unscale: f32, // 1 / loss scale
}

alias T5 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;
const PARTS = 64u; // workgroups of `squares`

// Momentum as Nesterov has it: the gradients become what the update is made of, g + momentum * (m - g), m being the new mean.

@group(0) @binding(1) var<storage, read_write> gradients: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> mean: array<vec4f>;
@group(0) @binding(3) var<storage, read> step: Step;

@compute @workgroup_size(WORKGROUP)
fn turn(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    let gradient = step.unscale * gradients[i];
    let value = p.momentum * mean[i] + p.rest * gradient;
    mean[i] = value;
    gradients[i] = p.rest * gradient + p.momentum * value;
  }
}

// The sum of a matrix's squares, in parts, added up in the same order in every run.

@group(0) @binding(1) var<storage, read_write> parts: array<f32>; // [PARTS]
@group(0) @binding(2) var<storage, read> x: array<f32>;

var<workgroup> sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn squares(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(local_invocation_index) lane: u32,
  @builtin(workgroup_id) group: vec3u,
) {
  var sum = 0.0;
  for (var i = id.x; i < p.count; i += PARTS * WORKGROUP) { sum += x[i] * x[i]; }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] += sums[lane + half]; }
    workgroupBarrier();
  }
  if (lane == 0u) { parts[group.x] = sums[0]; }
}

// The matrix over its norm.

@group(0) @binding(1) var<storage, read_write> scaled: array<f32>;
@group(0) @binding(3) var<storage, read> parts_in: array<f32>; // [PARTS]

@compute @workgroup_size(WORKGROUP)
fn normalise(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  var square = 0.0;
  for (var i = 0u; i < PARTS; i++) { square += parts_in[i]; }
  let factor = 1.0 / max(sqrt(square), p.epsilon);
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { scaled[i] = factor * x[i]; }
}

// The parameters less what has come of it; the gradients are set to zero on the way.

@group(0) @binding(1) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(2) var<storage, read_write> spent: array<f32>; // gradients
@group(0) @binding(4) var<storage, read> direction: array<f32>;
@group(0) @binding(5) var<storage, read_write> copy: array<T5>;

fn updated(i: u32) -> f32 {
  spent[i] = 0.0;
  let value = (1.0 - step.rate * p.decay) * parameters[i] - step.rate * p.factor * direction[i];
  parameters[i] = value;
  return value;
}

@compute @workgroup_size(WORKGROUP)
fn apply(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { _ = updated(i); }
}

@compute @workgroup_size(WORKGROUP)
fn apply_copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { copy[i] = T5(updated(i)); }
}
