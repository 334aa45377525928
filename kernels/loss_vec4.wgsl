// Cross-entropy, four elements a load; the width divides by 4. See loss.wgsl.

const WORKGROUP = 64u;

#include "rows_vec4"
#include "loss"

@compute @workgroup_size(WORKGROUP)
fn forward(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let hit = targets[row];
  if (hit == p.ignored) {
    log_sum_exp[row] = 0.0;
    losses[row] = 0.0;
    return;
  }
  let start = row * p.width;
  var highest4 = vec4f(logits[start]);
  var worst4 = vec4u();
  for (var i = 0u; i < p.width; i++) {
    let value = vec4f(logits[start + i]);
    highest4 = max(highest4, value);
    worst4 = max(worst4, bitcast<vec4u>(value) & vec4u(0x7fffffff));
  }
  let worst = max(max(worst4.x, worst4.y), max(worst4.z, worst4.w));
  let highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w));
  var sum = vec4f();
  for (var i = 0u; i < p.width; i++) { sum += exp(vec4f(logits[start + i]) - highest); }
  let total = dot(sum, vec4f(1));
  let result = nan_unless(highest + log(total), worst <= INFINITY && is_finite(total)); // see loss.wgsl
  log_sum_exp[row] = result;
  var loss = result - f32(logits[start + hit / 4u][hit % 4u]);
  if (p.share > 0.0) {
    var rest = vec4f();
    for (var i = 0u; i < p.width; i++) { rest += result - vec4f(logits[start + i]); }
    loss = p.kept * loss + p.share * dot(rest, vec4f(1));
  }
  losses[row] = loss;
}
