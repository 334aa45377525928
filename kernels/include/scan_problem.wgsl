// What the kernels of the selective scan are told, but for the plain forward, which takes one chunk after another.

struct Parameters {
  sequences: u32,
  length: u32,
  channels: u32,
  projectionStride: u32,
  gateStride: u32,
  chunk: u32, // the first of those that a dispatch takes
  span: u32, // how many it takes
}

@group(0) @binding(0) var<uniform> p: Parameters;

const LN2 = 0.6931471805599453;

// softplus as in scan.wgsl, and its derivative, the sigmoid.
fn softplus(value: f32) -> vec2f {
  let e = exp(-abs(value));
  let s = e / (2.0 + e);
  let q = s * s;
  let series = 1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0)))));
  return vec2f(max(value, 0.0) + 2.0 * s * series, select(e, 1.0, value > 0.0) / (1.0 + e));
}
