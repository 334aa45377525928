// What every kernel of the cross-entropy is told and given, in the words of rows_plain.wgsl and its like.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // classes, in steps of a load: elements or vec4s
  ignored: u32, // the target that does not count
  kept: f32, // 1 - smoothing
  share: f32, // smoothing / classes
}

alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(3) var<storage, read> logits: array<${of(T3)}>;
@group(0) @binding(4) var<storage, read> targets: array<u32>;

