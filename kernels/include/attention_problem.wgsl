// What every kernel of attention without the score matrix is told, and which keys a query sees and keeps.

#include "not_finite"

struct Parameters {
  length: u32, // positions of a sequence
  heads: u32,
  members: u32, // query heads that share a key and a value head
  size: u32, // vec4s in a row of a head
  causal: u32,
  padded: u32,
  scale: f32, // of the scores
  threshold: u32, // the rest is of dropout, see dropout.wgsl
  keep: f32,
  salt: u32,
  sequence: u32, // that of the grid's first layer
}

@group(0) @binding(0) var<uniform> p: Parameters;

const DROPOUT = 0u;
const LOWEST = -3.0e38; // instead of the score of a key that is not seen
const LOG2_E = 1.4426950408889634;

// See softmax.wgsl.
fn seen_of(position: u32, valid: u32) -> u32 {
  return clamp(min(select(p.length, position + 1u, p.causal != 0u), valid), 1u, p.length);
}

// Where the largest score of a row starts, all times `factor`: above LOWEST, so that keys that are not seen weigh nothing even
// where the scores of those that are seen are all -infinity.
fn start_of(factor: f32) -> f32 { return 0.5 * factor * LOWEST; }

// The logarithm of a row's sum of exponentials, NaN where that has none: exp2() of NaN may be infinite.
fn log_of(highest: f32, total: f32) -> f32 {
  return nan_unless((highest + log2(total)) / LOG2_E, total > 0.0 && is_finite(total));
}

// What dropout multiplies probabilities with, by rows of all rows of all heads, and keys.
fn keeps(rows: vec4u, keys: vec4u) -> vec4f {
  let start = mix32(vec4u(seed[0] ^ p.salt)) + seed[1] * p.heads * p.length + rows;
  return select(vec4f(0), vec4f(p.keep), mix32(mix32(start) ^ (keys * 0x9e3779b9u)) >= vec4u(p.threshold));
}

#include "mix32"
