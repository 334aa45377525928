// The sum of a tensor, by one workgroup: each invocation adds up every WORKGROUP-th element, then a tree joins them, so
// that the order, and with it every bit, is the same in every run.

struct Parameters {
  count: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [1]
@group(0) @binding(2) var<storage, read> x: array<f32>;

const WORKGROUP = 64u;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn sum(@builtin(local_invocation_index) lane: u32) {
  var mine = 0.0;
  for (var i = lane; i < p.count; i += WORKGROUP) { mine += x[i]; }
  partial[lane] = mine;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  if (lane == 0u) {
    var total = partial[0];
    if (p.accumulate != 0u) { total += out[0]; }
    out[0] = total;
  }
}
