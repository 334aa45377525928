// One step of an optimizer over all parameters of a stage, four a step, in strides of the grid. The gradients are set to zero on the way:
// the next step adds into them. In mixed precision `parameters` are the f32 masters, and the entries that end in _copy
// also write what the other kernels read, all in the one pass.

struct Parameters {
  count: u32, // vec4s
  decayed: u32, // elements; those before are decayed
  beta1: f32, // sgd_momentum: the momentum
  rest1: f32, // 1 - beta1, from the host: in float32 1 - 0.999 is off by 1e-5 of itself
  beta2: f32,
  rest2: f32,
  epsilon: f32,
  decay: f32,
}

// What changes from step to step; in a buffer, because uniform blocks are kept for ever by their content.
struct Step {
  rate: f32,
  corrected_rate: f32, // rate / (1 - beta1^t)
  correction: f32, // 1 / sqrt(1 - beta2^t)
  unscale: f32, // 1 / loss scale
}

alias T4 = f32;
alias T5 = f32;
alias T6 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> parameters: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4f>;
@group(0) @binding(3) var<storage, read> step: Step;
@group(0) @binding(4) var<storage, read_write> first: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> second: array<vec4f>;

// The copy comes last, behind no moment, one, or two.
@group(0) @binding(4) var<storage, read_write> copy4: array<vec4<T4>>;
@group(0) @binding(5) var<storage, read_write> copy5: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read_write> copy6: array<vec4<T6>>;

const WORKGROUP = 64u;

fn take_gradient(i: u32) -> vec4f {
  let gradient = step.unscale * gradients[i];
  gradients[i] = vec4f(0);
  return gradient;
}

fn sgd_update(i: u32) -> vec4f {
  let value = parameters[i] - step.rate * take_gradient(i);
  parameters[i] = value;
  return value;
}

fn sgd_momentum_update(i: u32) -> vec4f {
  let velocity = p.beta1 * first[i] + take_gradient(i);
  first[i] = velocity;
  let value = parameters[i] - step.rate * velocity;
  parameters[i] = value;
  return value;
}

fn adamw_update(i: u32) -> vec4f {
  let gradient = take_gradient(i);
  let mean = p.beta1 * first[i] + p.rest1 * gradient;
  let square = p.beta2 * second[i] + p.rest2 * gradient * gradient;
  first[i] = mean;
  second[i] = square;
  let element = vec4u(4u * i) + vec4u(0, 1, 2, 3);
  let kept = select(vec4f(1), vec4f(1.0 - step.rate * p.decay), element < vec4u(p.decayed));
  let value = kept * parameters[i] - step.corrected_rate * mean / (sqrt(square) * step.correction + p.epsilon);
  parameters[i] = value;
  return value;
}

fn lion_update(i: u32) -> vec4f {
  let gradient = take_gradient(i);
  let before = first[i];
  let direction = sign(p.beta1 * before + p.rest1 * gradient);
  first[i] = p.beta2 * before + p.rest2 * gradient;
  let element = vec4u(4u * i) + vec4u(0, 1, 2, 3);
  let kept = select(vec4f(1), vec4f(1.0 - step.rate * p.decay), element < vec4u(p.decayed));
  let value = kept * parameters[i] - step.rate * direction;
  parameters[i] = value;
  return value;
}

#define update0 sgd
#define update1 sgd_momentum
#define update2 adamw
#repeat moments 0 3
#define update ${update${moments}}
#define copy ${4 + moments}
@compute @workgroup_size(WORKGROUP)
fn ${update}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { ${update}_update(i); }
}

@compute @workgroup_size(WORKGROUP)
fn ${update}_copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { copy${copy}[i] = vec4<T${copy}>(${update}_update(i)); }
}
#end

@compute @workgroup_size(WORKGROUP)
fn lion(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { lion_update(i); }
}

@compute @workgroup_size(WORKGROUP)
fn lion_copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) { copy5[i] = vec4<T5>(lion_update(i)); }
}
