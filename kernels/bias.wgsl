// A vector added to each row, in place.

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s (add4)
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

#include "rows"

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> y${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> bias${_4}: array<${of(T2)}>;

@compute @workgroup_size(COLUMNS, ROWS)
fn add${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    y${_4}[start + i] = ${of(T1)}(${V}(y${_4}[start + i]) + ${V}(bias${_4}[i]));
  }
}
#end
