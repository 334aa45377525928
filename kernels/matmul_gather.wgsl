// The second half of a product whose sums were split along k: adds the parts up.
//
// out (+)= scale * sum over the parts, out [m, n] with a row stride and an offset, parts [count, m, n] f32.

struct Parameters {
  m: u32,
  n: u32,
  count: u32,
  rowStride: u32,
  offset: u32,
  scale: f32,
  accumulate: u32,
}

alias T1 = f32;
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> parts: array<f32>;

const WORKGROUP = 64u;

@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let element = id.x + id.y * grid.x * WORKGROUP;
  if (element >= p.m * p.n) { return; }
  var sum = 0.0;
  for (var part = 0u; part < p.count; part++) { sum += parts[part * p.m * p.n + element]; }
  let i = p.offset + element / p.n * p.rowStride + element % p.n;
  var old = 0.0;
  if (p.accumulate == 1) { old = f32(y[i]); }
  y[i] = T1(old + p.scale * sum);
}
