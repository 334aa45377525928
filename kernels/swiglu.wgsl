// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g * sigmoid(g); a row is [gate | up].

struct Parameters {
  rows: u32,
  width: u32, // of out, in elements, or vec4s (forward4, backward4)
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
#include "rows"

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> out${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> gate_up${_4}: array<${of(T2)}>;

@compute @workgroup_size(COLUMNS, ROWS)
fn forward${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = 2u * row * p.width + i;
    let gate = ${V}(gate_up${_4}[at]);
    out${_4}[row * p.width + i] = ${of(T1)}(gate / (1.0 + exp(-gate)) * ${V}(gate_up${_4}[at + p.width]));
  }
}

@group(0) @binding(1) var<storage, read_write> dgate_up${_4}: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dout${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> gate_up_in${_4}: array<${of(T3)}>;

// silu'(g) = sigmoid(g) * (1 + g * (1 - sigmoid(g)))
@compute @workgroup_size(COLUMNS, ROWS)
fn backward${_4}(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  for (var i = lane.x; i < p.width; i += COLUMNS) {
    let at = 2u * row * p.width + i;
    let gate = ${V}(gate_up_in${_4}[at]);
    let sigmoid = 1.0 / (1.0 + exp(-gate));
    let along = ${V}(dout${_4}[row * p.width + i]) * sigmoid;
    dgate_up${_4}[at] = ${of(T1)}(along * ${V}(gate_up_in${_4}[at + p.width]) * (1.0 + gate * (1.0 - sigmoid)));
    dgate_up${_4}[at + p.width] = ${of(T1)}(along * gate);
  }
}
#end
