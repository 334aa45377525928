// The selective scan of Mamba (Gu, Dao 2023, section 3.2), for each channel and sequence by itself:
//   h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t],  y[t] = C[t] . h[t] + D x[t],  out = y silu(z),
//   dt = softplus(dt_raw + bias),  A = -exp(A_log)

#include "not_finite"

struct Parameters {
  sequences: u32,
  length: u32, // tokens in a sequence
  channels: u32,
  projectionStride: u32, // vec4s from a row of `projection` to the next; B and C are its last 2 * VECTORS
  gateStride: u32, // elements from a row of `gate` to the next; z is its last `channels`
}

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;
const VECTORS = 4u; // vec4s in a state
const CHUNK = 16u; // tokens between two kept states

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
alias T4 = f32;
alias T5 = f32;
alias T6 = f32;

const LOG2E = 1.4426950408889634;

@group(0) @binding(1) var<storage, read_write> constants: array<vec4f>; // [channels, VECTORS + 1]: A log2(e); D, bias
@group(0) @binding(2) var<storage, read> a_log: array<vec4<T2>>; // [channels, VECTORS]
@group(0) @binding(3) var<storage, read> d: array<T3>;
@group(0) @binding(4) var<storage, read> bias: array<T4>;

// What depends on the channel alone, once for all invocations and chunks, and in one binding: devices may allow only ten.
@compute @workgroup_size(WORKGROUP)
fn prepare(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let channel = id.x + id.y * n.x * WORKGROUP;
  if (channel >= p.channels) { return; }
  let at = channel * (VECTORS + 1u);
  for (var v = 0u; v < VECTORS; v++) {
    let value = vec4f(a_log[channel * VECTORS + v]);
    constants[at + v] = -LOG2E * select(exp(value), value, is_nan4(value));
  }
  constants[at + VECTORS] = vec4f(f32(d[channel]), f32(bias[channel]), 0.0, 0.0);
}

@group(0) @binding(1) var<storage, read_write> out: array<T1>; // [sequences * length, channels]
@group(0) @binding(2) var<storage, read_write> states: array<vec4f>; // [sequences, chunks, VECTORS, channels]
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> dt_raw: array<T4>;
@group(0) @binding(5) var<storage, read> projection: array<vec4<T5>>;
@group(0) @binding(6) var<storage, read> gate: array<T6>;
@group(0) @binding(7) var<storage, read> constants_in: array<vec4f>;

// One invocation a channel and sequence. Keeps the state before each chunk.
@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let lane = id.x + id.y * n.x * WORKGROUP;
  if (lane >= p.sequences * p.channels) { return; }
  let channel = lane % p.channels;
  let sequence = lane / p.channels;
  let chunks = (p.length + CHUNK - 1u) / CHUNK;
  var a: array<vec4f, VECTORS>;
  var h: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = constants_in[channel * (VECTORS + 1u) + v];
    h[v] = vec4f();
  }
  let rest = constants_in[channel * (VECTORS + 1u) + VECTORS];
  for (var t = 0u; t < p.length; t++) {
    if (t % CHUNK == 0u) {
      let kept = (sequence * chunks + t / CHUNK) * VECTORS;
      for (var v = 0u; v < VECTORS; v++) { states[(kept + v) * p.channels + channel] = h[v]; }
    }
    let row = sequence * p.length + t;
    #include "scan_token"
  }
}

@group(0) @binding(2) var<storage, read_write> state: array<vec4f>; // [VECTORS, channels]: after the token before, and then after the last
@group(0) @binding(8) var<storage, read> before: array<u32>; // [1]: tokens before the first row; with none the state is 0

// The same for the next tokens of one sequence, one invocation a channel.
@compute @workgroup_size(WORKGROUP)
fn forward_on(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let channel = id.x + id.y * n.x * WORKGROUP;
  if (channel >= p.channels) { return; }
  var a: array<vec4f, VECTORS>;
  var h: array<vec4f, VECTORS>;
  for (var v = 0u; v < VECTORS; v++) {
    a[v] = constants_in[channel * (VECTORS + 1u) + v];
    if (before[0] > 0u) { h[v] = state[v * p.channels + channel]; }
    h[v] = select(h[v], a[v], is_nan4(a[v])); // exp2() of NaN may be infinite
  }
  let rest = constants_in[channel * (VECTORS + 1u) + VECTORS];
  for (var row = 0u; row < p.length; row++) {
    #include "scan_token"
  }
  for (var v = 0u; v < VECTORS; v++) { state[v * p.channels + channel] = h[v]; }
}

// log(1 + e) with e = exp(-|value|) as 2 atanh(e / (2 + e)): the series reaches float32's precision and, unlike the sum in
// the logarithm, keeps it where e is small.
fn softplus(value: f32) -> f32 {
  let e = exp(-abs(value));
  let s = e / (2.0 + e);
  let q = s * s;
  let series = 1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0)))));
  return max(value, 0.0) + 2.0 * s * series;
}
