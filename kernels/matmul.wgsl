// Matrix multiplication, the plain reference: one invocation an element of the result, which reads a row of a and a
// column of b. Every tuned kernel is checked against it, and it serves what none of them takes.
//
// out (+)= scale * a b, for each matrix of a batch, one batch entry a z layer of the grid.

#include "matmul_problem"

@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> a: array<T2>;
@group(0) @binding(3) var<storage, read> b: array<T3>;

const TRANSPOSE_A = 0u;
const TRANSPOSE_B = 0u;
const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn plain(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(num_workgroups) grid: vec3u,
) {
  let element = id.x + id.y * grid.x * WORKGROUP;
  if (element >= p.m * p.n) { return; }
  let row = element / p.n;
  let column = element % p.n;
  var ai = start(p.a, id.z) + row * select(p.a.rowStride, 1u, TRANSPOSE_A == 1u);
  var bi = start(p.b, id.z) + column * select(1u, p.b.rowStride, TRANSPOSE_B == 1u);
  var sum = 0.0;
  for (var k = 0u; k < p.k; k++) {
    sum += f32(a[ai]) * f32(b[bi]);
    ai += select(1u, p.a.rowStride, TRANSPOSE_A == 1u);
    bi += select(p.b.rowStride, 1u, TRANSPOSE_B == 1u);
  }
  let yi = start(p.out, id.z) + row * p.out.rowStride + column;
  var old = 0.0;
  if (p.accumulate == 1u) { old = f32(y[yi]); }
  y[yi] = T1(old + p.scale * sum);
}
