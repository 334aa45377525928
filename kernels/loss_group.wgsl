// Cross-entropy, one workgroup a row, for GPUs. See loss.wgsl.

#include "not_finite"

struct Parameters {
  rows: u32,
  width: u32, // classes
}

alias T3 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(3) var<storage, read> logits: array<T3>;
@group(0) @binding(4) var<storage, read> targets: array<u32>;

const WORKGROUP = 128u;
const IGNORED = 0xffffffffu;

var<workgroup> partial: array<f32, WORKGROUP>;
var<workgroup> row_worst: atomic<u32>;

@compute @workgroup_size(WORKGROUP)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) n: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * n.x;
  if (row >= p.rows) { return; }
  let hit = targets[row];
  if (hit == IGNORED) {
    if (lane == 0u) {
      log_sum_exp[row] = 0.0;
      losses[row] = 0.0;
    }
    return;
  }
  let start = row * p.width;
  var mine = f32(logits[start]);
  var worst = 0u;
  for (var i = lane; i < p.width; i += WORKGROUP) {
    let value = f32(logits[start + i]);
    mine = max(mine, value);
    worst = max(worst, bitcast<u32>(value) & 0x7fffffffu);
  }
  atomicMax(&row_worst, worst); // starts at 0
  partial[lane] = mine;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  let highest = partial[0];
  workgroupBarrier(); // all have read before `partial` is used again
  var sum = 0.0;
  for (var i = lane; i < p.width; i += WORKGROUP) { sum += exp(f32(logits[start + i]) - highest); }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  if (lane == 0u) {
    let all = partial[0];
    let result = nan_unless(highest + log(all), atomicLoad(&row_worst) <= INFINITY && is_finite(all)); // see loss.wgsl
    log_sum_exp[row] = result;
    losses[row] = result - f32(logits[start + hit]);
  }
}
