// Of square matrices of attention scores, in place: what a row does not see of its sequence, since it stands before the row's
// document, becomes `value`. A row sees itself, wherever its document is said to start.

struct Parameters {
  rows: u32, // of all matrices
  width: u32, // of a row, in elements, or vec4s (hide4)
  length: u32, // of a row, in elements, and rows of a matrix
  heads: u32, // matrices of a sequence
  value: f32,
}

alias T1 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(2) var<storage, read> starts: array<u32>; // [sequences, length]: where the row's document starts

#include "rows"

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> x${_4}: array<${of(T1)}>;

@compute @workgroup_size(COLUMNS, ROWS)
fn hide${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let position = row % p.length;
  let start = min(starts[row / (p.heads * p.length) * p.length + position], position);
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let hidden = ${U}(${elements(i)}) < ${U}(start);
    if (!any(hidden)) { break; } // and none behind
    let at = row * p.width + i;
    x${_4}[at] = select(x${_4}[at], ${of(T1)}(${V}(p.value)), hidden);
  }
}
#end
