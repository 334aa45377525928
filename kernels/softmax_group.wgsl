// Softmax in place, one workgroup a row, for GPUs. See softmax.wgsl.

const WORKGROUP = 64u;

#include "rows_group"
#define and_lane , lane
#include "softmax"

#include "total"

// The largest of `value` over the workgroup, likewise.
fn largest(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  #define merge partial[lane] = max(partial[lane], partial[lane + half]);
  #include "halves"
  return partial[0];
}

fn softmax(row: u32, valid: u32, lane: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var mine = f32(x[start]);
  for (var i = lane; i < seen; i += WORKGROUP) { mine = max(mine, f32(x[start + i])); }
  let highest = largest(lane, mine);
  workgroupBarrier(); // all have read `partial` before it is used again, and x[start] before it is written
  var sum = 0.0;
  for (var i = lane; i < seen; i += WORKGROUP) {
    let value = exp(f32(x[start + i]) - highest);
    x[start + i] = T1(value);
    sum += value;
  }
  let all = total(lane, sum);
  let factor = nan_unless(1.0 / all, is_finite(all)); // see softmax.wgsl
  for (var i = lane; i < p.length; i += WORKGROUP) {
    x[start + i] = T1(select(0.0, f32(x[start + i]) * factor, i < seen));
  }
}

fn softmax_backward(row: u32, valid: u32, lane: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var products = 0.0;
  for (var i = lane; i < seen; i += WORKGROUP) { products += f32(y[start + i]) * f32(dx[start + i]); }
  let sum = total(lane, products);
  for (var i = lane; i < p.length; i += WORKGROUP) {
    dx[start + i] = T1(select(0.0, f32(y[start + i]) * (f32(dx[start + i]) - sum), i < seen));
  }
}
