// What every LayerNorm kernel is told and given, in the words of rows_plain.wgsl and its like.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // in steps of a load: elements or vec4s
  epsilon: f32,
}

#repeat binding 1 6
  alias T${binding} = f32;
#end

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> y: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read_write> statistics_out: array<vec2f>; // of each row: mean, rstd
@group(0) @binding(3) var<storage, read> x: array<${of(T3)}>;
@group(0) @binding(4) var<storage, read> gain: array<${of(T4)}>;
@group(0) @binding(5) var<storage, read> bias: array<${of(T5)}>;

@group(0) @binding(1) var<storage, read_write> dx: array<${of(T1)}>;
@group(0) @binding(2) var<storage, read> dy: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> x_in: array<${of(T3)}>;
@group(0) @binding(4) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(5) var<storage, read> gain_in: array<${of(T5)}>;
