// Cross-entropy, one workgroup a row, for GPUs. See loss.wgsl.

const WORKGROUP = 128u;

#include "rows_group"
#include "loss"

var<workgroup> partial: array<f32, WORKGROUP>;
var<workgroup> row_worst: atomic<u32>;

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let hit = targets[row];
  if (hit == p.ignored) {
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
  #define merge partial[lane] = max(partial[lane], partial[lane + half]);
  #include "halves"
  let highest = partial[0];
  workgroupBarrier(); // all have read before `partial` is used again
  var sum = 0.0;
  for (var i = lane; i < p.width; i += WORKGROUP) { sum += exp(f32(logits[start + i]) - highest); }
  partial[lane] = sum;
  #define merge partial[lane] += partial[lane + half];
  #include "halves"
  let all = partial[0];
  let result = nan_unless(highest + log(all), atomicLoad(&row_worst) <= INFINITY && is_finite(all)); // see loss.wgsl
  var loss = result - f32(logits[start + hit]);
  if (p.share > 0.0) {
    workgroupBarrier();
    var rest = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) { rest += result - f32(logits[start + i]); }
    partial[lane] = rest;
    #define merge partial[lane] += partial[lane + half];
    #include "halves"
    loss = p.kept * loss + p.share * partial[0];
  }
  if (lane == 0u) {
    log_sum_exp[row] = result;
    losses[row] = loss;
  }
}
