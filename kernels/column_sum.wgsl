// Sums of columns:  out[c] += sum over rows of x.
// A column is split into blocks of rows. With one block, `partials` is the result itself and is added to; else each block
// writes a sum of its own, and `gather` adds these up in their order: the same bits in every run.

struct Parameters {
  rows: u32,
  width: u32, // in elements, or vec4s (sum4)
  block: u32, // rows in a block
  accumulate: u32, // whether a sum is added to what is there
}

alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;

const WORKGROUP = 64u;

#each "elements" "vec4s"
@group(0) @binding(1) var<storage, read_write> partials${_4}: array<${V}>; // [blocks, width]; gather: [width]
@group(0) @binding(2) var<storage, read> x${_4}: array<${of(T2)}>;

// One invocation a column, or four, and block.
@compute @workgroup_size(WORKGROUP)
fn sum${_4}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let at = id.x + id.y * n.x * WORKGROUP;
  let column = at % p.width;
  let first = at / p.width * p.block;
  if (first >= p.rows) { return; }
  var total = ${zero};
  let end = min(p.rows, first + p.block);
  for (var row = first; row < end; row++) { total += ${V}(x${_4}[row * p.width + column]); }
  if (p.accumulate != 0u) { total += partials${_4}[at]; }
  partials${_4}[at] = total;
}
#end

// The blocks' sums, added to what is there; here `rows` counts blocks.
@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let column = id.x + id.y * n.x * WORKGROUP;
  if (column >= p.width) { return; }
  var total = partials[column];
  for (var row = 0u; row < p.rows; row++) { total += f32(x[row * p.width + column]); }
  partials[column] = total;
}
