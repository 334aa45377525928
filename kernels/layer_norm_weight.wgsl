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
@group(0) @binding(1) var<storage, read_write> gains: array<f32>; // [blocks, width]
@group(0) @binding(2) var<storage, read_write> biases: array<f32>; // [blocks, width]
@group(0) @binding(3) var<storage, read> dy: array<T3>;
@group(0) @binding(4) var<storage, read> x: array<T4>;
@group(0) @binding(5) var<storage, read> statistics: array<vec2f>; // of each row: mean, rstd

const WORKGROUP = 64u;

// One invocation a column and block.
@compute @workgroup_size(WORKGROUP)
fn sums(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.width) { return; }
  var gain = 0.0;
  var bias = 0.0;
  let end = min(p.rows, (id.y + 1u) * p.block);
  for (var row = id.y * p.block; row < end; row++) {
    let i = row * p.width + column;
    let slope = f32(dy[i]);
    bias += slope;
    gain += slope * (f32(x[i]) - statistics[row].x) * statistics[row].y;
  }
  let i = id.y * p.width + column;
  gains[i] = gain;
  biases[i] = bias;
}

@group(0) @binding(1) var<storage, read_write> gains4: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> biases4: array<vec4f>;
@group(0) @binding(3) var<storage, read> dy4: array<vec4<T3>>;
@group(0) @binding(4) var<storage, read> x4: array<vec4<T4>>;

// The same, four columns an invocation.
@compute @workgroup_size(WORKGROUP)
fn sums4(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.width) { return; }
  var gain = vec4f();
  var bias = vec4f();
  let end = min(p.rows, (id.y + 1u) * p.block);
  for (var row = id.y * p.block; row < end; row++) {
    let i = row * p.width + column;
    let slope = vec4f(dy4[i]);
    bias += slope;
    gain += slope * (vec4f(x4[i]) - statistics[row].x) * statistics[row].y;
  }
  let i = id.y * p.width + column;
  gains4[i] = gain;
  biases4[i] = bias;
}
