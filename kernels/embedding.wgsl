// Token embedding. ids: [2, rows], see packIds() in lib/ops/embedding.ts: the token of each position, and behind all of
// them, for each position, the next position with the same token, with the top bit set if there is an earlier one.

struct Parameters {
  rows: u32,
  width: u32, // of the table's rows, in elements, or vec4s (forward4, backward_weight4)
}

alias T1 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(2) var<storage, read> ids: array<u32>;

#include "rows"

const LATER = 0x80000000u;
const END = 0x7fffffffu;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> out${_4}: array<${of(T1)}>;
@group(0) @binding(3) var<storage, read> values${_4}: array<${of(T3)}>; // the table; backward_weight: dy

@compute @workgroup_size(COLUMNS, ROWS)
fn forward${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = ids[row] * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    out${_4}[row * p.width + i] = ${of(T1)}(${V}(values${_4}[start + i]));
  }
}

// Only a token's first position has work: it walks all positions of that token and adds up, so that no two invocations
// write one element and the order is always the same.
@compute @workgroup_size(COLUMNS, ROWS)
fn backward_weight${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows || (ids[p.rows + row] & LATER) != 0u) { return; }
  let start = ids[row] * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    var sum = ${V}(out${_4}[start + i]);
    for (var at = row; at != END; at = ids[p.rows + at] & END) { sum += ${V}(values${_4}[at * p.width + i]); }
    out${_4}[start + i] = ${of(T1)}(sum);
  }
}
#end
