// What every softmax kernel is told and given, and its entry points, in the words of rows_plain.wgsl and its like. The kernel
// says how `softmax` and `softmax_backward` treat a row whose sequence has `valid` positions.

#include "not_finite"

struct Parameters {
  rows: u32,
  length: u32, // of a row, and rows of a matrix
  heads: u32, // matrices of a sequence
  causal: u32,
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> ends: array<u32>; // of each sequence: its valid positions

@group(0) @binding(1) var<storage, read_write> dx: array<${of(T1)}>; // in: gradient of y
@group(0) @binding(2) var<storage, read> y: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> ends_in: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row < p.rows) { softmax(row, p.length${and_lane}); }
}

@compute @workgroup_size(WORKGROUP)
fn forward_padded(${place}) {
  let row = ${row};
  if (row < p.rows) { softmax(row, ends[sequence_of(row)]${and_lane}); }
}

@compute @workgroup_size(WORKGROUP)
fn backward(${place}) {
  let row = ${row};
  if (row < p.rows) { softmax_backward(row, p.length${and_lane}); }
}

@compute @workgroup_size(WORKGROUP)
fn backward_padded(${place}) {
  let row = ${row};
  if (row < p.rows) { softmax_backward(row, ends_in[sequence_of(row)]${and_lane}); }
}

fn sequence_of(row: u32) -> u32 { return row / (p.heads * p.length); }

// Scores that count in a row, whose sequence has `valid` positions. The first always does, or a row of an empty sequence
// would have no probabilities.
fn seen_of(row: u32, valid: u32) -> u32 {
  return clamp(min(select(p.length, row % p.length + 1u, p.causal != 0u), valid), 1u, p.length);
}
