// Causal depthwise convolution of four taps along the tokens of each sequence, then silu:
//   y[t] = silu(pre[t]),  pre[t] = bias + sum over k of weight[k] * x[t - 3 + k],  x = 0 before the sequence
// The four inputs of a token slide through a vector: each is loaded once.

struct Parameters {
  sequences: u32,
  length: u32, // tokens in a sequence
  channels: u32,
  stride: u32, // elements from a row of x to the next
  block: u32, // forward: tokens that one invocation goes over, at least 3
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;
alias T6 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>; // [sequences * length, channels]
@group(0) @binding(2) var<storage, read> x: array<T2>; // [sequences * length, stride]
@group(0) @binding(3) var<storage, read> weight: array<vec4<T3>>; // [channels]
@group(0) @binding(4) var<storage, read> bias: array<T4>;

const WORKGROUP = 64u;

// One invocation a channel and block of a sequence.
@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  let blocks = (p.length + p.block - 1u) / p.block;
  if (lane >= p.sequences * blocks * p.channels) { return; }
  let channel = lane % p.channels;
  let part = lane / p.channels;
  let row = part / blocks * p.length;
  let start = part % blocks * p.block;
  let end = min(start + p.block, p.length);
  let taps = vec4f(weight[channel]);
  let offset = f32(bias[channel]);
  var window = vec4f(); // x[t - 3 .. t]
  if (start > 0u) {
    for (var t = start - 3u; t < start; t++) { window = vec4f(window.yzw, f32(x[(row + t) * p.stride + channel])); }
  }
  for (var t = start; t < end; t++) {
    window = vec4f(window.yzw, f32(x[(row + t) * p.stride + channel]));
    let pre = dot(taps, window) + offset;
    y[(row + t) * p.channels + channel] = T1(pre / (1.0 + exp(-pre)));
  }
}

@group(0) @binding(2) var<storage, read_write> last: array<vec4f>; // [channels]: the last inputs, the latest at the end
@group(0) @binding(3) var<storage, read> x_on: array<T3>;
@group(0) @binding(4) var<storage, read> weight_on: array<vec4<T4>>;
@group(0) @binding(5) var<storage, read> bias_on: array<T5>;
@group(0) @binding(6) var<storage, read> before: array<u32>; // [1]: tokens before the first row; with none they are 0

// The next tokens of one sequence, one invocation a channel.
@compute @workgroup_size(WORKGROUP)
fn forward_on(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let channel = id.x + id.y * n.x * WORKGROUP;
  if (channel >= p.channels) { return; }
  let taps = vec4f(weight_on[channel]);
  let offset = f32(bias_on[channel]);
  var window = vec4f();
  if (before[0] > 0u) { window = last[channel]; }
  for (var t = 0u; t < p.length; t++) {
    window = vec4f(window.yzw, f32(x_on[t * p.stride + channel]));
    let pre = dot(taps, window) + offset;
    y[t * p.channels + channel] = T1(pre / (1.0 + exp(-pre)));
  }
  last[channel] = window;
}

@group(0) @binding(1) var<storage, read_write> x_to_dx: array<T1>; // [sequences * length, stride]
@group(0) @binding(2) var<storage, read_write> dweight: array<vec4f>; // [sequences, channels]
@group(0) @binding(3) var<storage, read_write> dbias: array<f32>; // [sequences, channels]
@group(0) @binding(4) var<storage, read> dy: array<T4>;
@group(0) @binding(5) var<storage, read> weight_in: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> bias_in: array<T6>;

// One invocation a channel and sequence, from the last token to the first: x[t] makes room for dx[t] once pre[t] .. pre[t + 3],
// which are all that it enters, have been computed.
@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.channels) { return; }
  let channel = lane % p.channels;
  let row = lane / p.channels * p.length;
  let taps = vec4f(weight_in[channel]);
  let offset = f32(bias_in[channel]);
  var window = vec4f(); // x[t - 3 .. t]
  for (var t = p.length - min(p.length, 4u); t < p.length; t++) {
    window = vec4f(window.yzw, f32(x_to_dx[(row + t) * p.stride + channel]));
  }
  var dpre = vec4f(); // of t .. t + 3
  var weight_sum = vec4f();
  var bias_sum = 0.0;
  for (var t = p.length; t > 0u;) {
    t--;
    let pre = dot(taps, window) + offset;
    let sigmoid = 1.0 / (1.0 + exp(-pre));
    let here = f32(dy[(row + t) * p.channels + channel]) * sigmoid * (1.0 + pre * (1.0 - sigmoid));
    dpre = vec4f(here, dpre.xyz);
    weight_sum += here * window;
    bias_sum += here;
    x_to_dx[(row + t) * p.stride + channel] = T1(dot(taps.wzyx, dpre));
    var before = 0.0;
    if (t >= 4u) { before = f32(x_to_dx[(row + t - 4u) * p.stride + channel]); }
    window = vec4f(before, window.xyz);
  }
  dweight[lane] = weight_sum;
  dbias[lane] = bias_sum;
}
