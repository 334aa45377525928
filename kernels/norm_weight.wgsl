// RMSNorm, gradient of the gain:  dgain[c] = sum over rows of dy * x * rstd.
// A column is split into blocks of rows, each of which writes a sum of its own; column_sum.wgsl adds several up in their
// order: the same bits in every run.

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s (sums4)
  block: u32, // rows in a block
}

alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>; // [blocks, width]
@group(0) @binding(2) var<storage, read> dy: array<T2>;
@group(0) @binding(3) var<storage, read> x: array<T3>;
@group(0) @binding(4) var<storage, read> rstd: array<f32>;

const WORKGROUP = 64u;

// One invocation a column and block.
@compute @workgroup_size(WORKGROUP)
fn sums(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.width) { return; }
  var sum = 0.0;
  let end = min(p.rows, (id.y + 1u) * p.block);
  for (var row = id.y * p.block; row < end; row++) {
    let i = row * p.width + column;
    sum += f32(dy[i]) * f32(x[i]) * rstd[row];
  }
  partials[id.y * p.width + column] = sum;
}

@group(0) @binding(1) var<storage, read_write> partials4: array<vec4f>;
@group(0) @binding(2) var<storage, read> dy4: array<vec4<T2>>;
@group(0) @binding(3) var<storage, read> x4: array<vec4<T3>>;

// The same, four columns an invocation.
@compute @workgroup_size(WORKGROUP)
fn sums4(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.width) { return; }
  var sum = vec4f();
  let end = min(p.rows, (id.y + 1u) * p.block);
  for (var row = id.y * p.block; row < end; row++) {
    let i = row * p.width + column;
    sum += vec4f(dy4[i]) * vec4f(x4[i]) * rstd[row];
  }
  partials4[id.y * p.width + column] = sum;
}
