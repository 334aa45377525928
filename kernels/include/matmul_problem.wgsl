// What every matmul kernel is told: see Problem in lib/ops/matmul_kernels.ts.

struct Matrices {
  rowStride: u32,
  offset: u32,
  stride0: u32, // between matrices along the first batch axis
  stride1: u32, // along the second
}

struct Parameters {
  m: u32,
  n: u32,
  k: u32,
  batch1: u32, // length of the second batch axis
  out: Matrices,
  a: Matrices,
  b: Matrices,
  scale: f32,
  accumulate: u32,
  first: u32, // of all matrices along the batch axes, that of the grid's first layer
}

alias T1 = f32;
alias T2 = f32;
alias T3 = f32;
@group(0) @binding(0) var<uniform> p: Parameters;

// Where the matrices of the grid's layer z start.
fn start(x: Matrices, z: u32) -> u32 {
  let number = p.first + z; // along the batch axes
  return x.offset + number / p.batch1 * x.stride0 + number % p.batch1 * x.stride1;
}
