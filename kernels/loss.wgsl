// Cross-entropy of logits, the plain reference: one invocation a row.
//   loss = kept * (logSumExp - logits[target]) + share * sum of (logSumExp - logits),  0 for a target that is `ignored`

const WORKGROUP = 64u;

#include "rows_plain"
#include "loss"

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  if (targets[row] == p.ignored) {
    log_sum_exp[row] = 0.0;
    losses[row] = 0.0;
    return;
  }
  let start = row * p.width;
  var highest = f32(logits[start]);
  var worst = 0u;
  for (var i = 0u; i < p.width; i++) {
    let value = f32(logits[start + i]);
    highest = max(highest, value);
    worst = max(worst, bitcast<u32>(value) & 0x7fffffffu);
  }
  var sum = 0.0;
  for (var i = 0u; i < p.width; i++) { sum += exp(f32(logits[start + i]) - highest); }
  // max(), exp() and log() may hide a NaN among the logits, and a run that has gone astray would show a fine loss: told by the
  // bits of the largest magnitude. With an infinite one the sum is not finite.
  let result = nan_unless(highest + log(sum), worst <= INFINITY && is_finite(sum));
  log_sum_exp[row] = result;
  var loss = result - f32(logits[start + targets[row]]);
  if (p.share > 0.0) {
    var rest = 0.0;
    for (var i = 0u; i < p.width; i++) { rest += result - f32(logits[start + i]); }
    loss = p.kept * loss + p.share * rest;
  }
  losses[row] = loss;
}
