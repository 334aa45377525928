// Dot products of the rows of attention's output and their gradients, for each head: what the probabilities' gradient is
// measured from in softmax's (D in Dao, arXiv 2307.08691, algorithm 2). One invocation a row of a head.

struct Parameters {
  count: u32, // sequences * length * heads
  length: u32,
  heads: u32,
  size: u32, // vec4s in a row of a head
}

alias T2 = f32;
alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> means: array<f32>; // [sequences, heads, length]
@group(0) @binding(2) var<storage, read> out: array<vec4<T2>>; // [sequences, length, heads, size]
@group(0) @binding(3) var<storage, read> dout: array<vec4<T3>>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn dots(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  let i = id.x + id.y * n.x * WORKGROUP;
  if (i >= p.count) { return; }
  var sum = vec4f();
  for (var c = 0u; c < p.size; c++) { sum += vec4f(out[i * p.size + c]) * vec4f(dout[i * p.size + c]); }
  let row = i / p.heads;
  means[(row / p.length * p.heads + i % p.heads) * p.length + row % p.length] = dot(sum, vec4f(1));
}
