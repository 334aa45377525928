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
@group(0) @binding(4) var<storage, read> rstd: array<f32>;

const WORKGROUP = 64u;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> partials${_4}: array<${V}>; // [blocks, width]
@group(0) @binding(2) var<storage, read> dy${_4}: array<${of(T2)}>;
@group(0) @binding(3) var<storage, read> x${_4}: array<${of(T3)}>;

// One invocation a column, or four, and block.
@compute @workgroup_size(WORKGROUP)
fn sums${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  let column = at % p.width;
  let first = at / p.width * p.block;
  if (first >= p.rows) { return; }
  var sum = ${zero};
  let end = min(p.rows, first + p.block);
  for (var row = first; row < end; row++) {
    let i = row * p.width + column;
    sum += ${V}(dy${_4}[i]) * ${V}(x${_4}[i]) * rstd[row];
  }
  partials${_4}[at] = sum;
}
#end
