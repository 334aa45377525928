// One step of an optimizer over all parameters of a stage, four a step, in strides of the grid. The gradients are set to zero on the way:
// the next step adds into them.

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
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> parameters: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4f>;
@group(0) @binding(3) var<storage, read> step: Step;
@group(0) @binding(4) var<storage, read_write> first: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> second: array<vec4f>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn sgd(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    parameters[i] -= step.rate * gradients[i];
    gradients[i] = vec4f(0);
  }
}

@compute @workgroup_size(WORKGROUP)
fn sgd_momentum(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    let velocity = p.beta1 * first[i] + gradients[i];
    first[i] = velocity;
    parameters[i] -= step.rate * velocity;
    gradients[i] = vec4f(0);
  }
}

@compute @workgroup_size(WORKGROUP)
fn adamw(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    let gradient = gradients[i];
    gradients[i] = vec4f(0);
    let mean = p.beta1 * first[i] + p.rest1 * gradient;
    let square = p.beta2 * second[i] + p.rest2 * gradient * gradient;
    first[i] = mean;
    second[i] = square;
    let element = vec4u(4u * i) + vec4u(0, 1, 2, 3);
    let kept = select(vec4f(1), vec4f(1.0 - step.rate * p.decay), element < vec4u(p.decayed));
    parameters[i] = kept * parameters[i] - step.corrected_rate * mean / (sqrt(square) * step.correction + p.epsilon);
  }
}
