// Softmax in place, the plain reference: one invocation a row. A row of each square matrix holds scores for the first
// positions of its sequence: causal ones for those up to its own; none for those beyond the sequence's end, where ends
// are given. What lies behind is set to 0, whatever it was.

const WORKGROUP = 64u;

#include "rows_plain"
#define and_lane
#include "softmax"

fn softmax(row: u32, valid: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var highest = f32(x[start]);
  for (var i = 1u; i < seen; i++) { highest = max(highest, f32(x[start + i])); }
  var sum = 0.0;
  for (var i = 0u; i < seen; i++) {
    let value = exp(f32(x[start + i]) - highest);
    x[start + i] = T1(value);
    sum += value;
  }
  let factor = nan_unless(1.0 / sum, is_finite(sum)); // a NaN among the scores may end as an infinite sum
  for (var i = 0u; i < seen; i++) { x[start + i] = T1(f32(x[start + i]) * factor); }
  for (var i = seen; i < p.length; i++) { x[start + i] = T1(0); }
}

// dx = y * (dy - sum(y * dy))
fn softmax_backward(row: u32, valid: u32) {
  let start = row * p.length;
  let seen = seen_of(row, valid);
  var sum = 0.0;
  for (var i = 0u; i < seen; i++) { sum += f32(y[start + i]) * f32(dx[start + i]); }
  for (var i = 0u; i < seen; i++) { dx[start + i] = T1(f32(y[start + i]) * (f32(dx[start + i]) - sum)); }
  for (var i = seen; i < p.length; i++) { dx[start + i] = T1(0); }
}
