// LayerNorm, gradients of gain and bias:  dgain[c] = sum over rows of dy * (x - mean) * rstd,  dbias[c] = sum of dy.
// A column is split into blocks of rows, each of which writes sums of its own; column_sum.wgsl adds several up in their
// order: the same bits in every run.

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s (sums4)
  block: u32, // rows in a block
}

alias T3 = f32;
alias T4 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(5) var<storage, read> statistics: array<vec2f>; // of each row: mean, rstd

const WORKGROUP = 64u;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> gains${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(2) var<storage, read_write> biases${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(3) var<storage, read> dy${_4}: array<${of(T3)}>;
@group(0) @binding(4) var<storage, read> x${_4}: array<${of(T4)}>;

// One invocation a column, or four, and block.
@compute @workgroup_size(WORKGROUP)
fn sums${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  let column = at % p.width;
  let first = at / p.width * p.block;
  if (first >= p.rows) { return; }
  var gain = ${zero};
  var bias = ${zero};
  let end = min(p.rows, first + p.block);
  for (var row = first; row < end; row++) {
    let i = row * p.width + column;
    let slope = ${V}(dy${_4}[i]);
    bias += slope;
    gain += slope * (${V}(x${_4}[i]) - statistics[row].x) * statistics[row].y;
  }
  gains${_4}[at] = gain;
  biases${_4}[at] = bias;
}
#end
