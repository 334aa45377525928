// Some columns of rows, as rows of their own.

struct Parameters {
  count: u32, // of elements of y
  width: u32, // of a row of y
  stride: u32, // width of a row of x
  start: u32, // first of the columns
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> x: array<T2>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn take(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  for (var i = id.x; i < p.count; i += n.x * WORKGROUP) {
    y[i] = T1(f32(x[i / p.width * p.stride + p.start + i % p.width]));
  }
}
