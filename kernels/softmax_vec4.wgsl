// Softmax in place, one invocation a row, four elements a load; the length divides by 4. See softmax.wgsl.

const WORKGROUP = 64u;
const LOWEST = -3.4e38;

#include "rows_vec4"
#define and_lane
#include "softmax"

fn softmax(row: u32, valid: u32) {
  let width = p.length / 4u;
  let start = row * width;
  let last = seen_of(row, valid) - 1u;
  let whole = last / 4u; // vec4s before the one that holds the last score
  let seen = vec4u(0, 1, 2, 3) <= vec4u(last % 4u);
  let edge = select(vec4f(LOWEST), vec4f(x[start + whole]), seen);
  var highest4 = edge;
  for (var i = 0u; i < whole; i++) { highest4 = max(highest4, vec4f(x[start + i])); }
  let highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w));
  let edge_value = select(vec4f(0), exp(edge - highest), seen);
  var sum = edge_value;
  for (var i = 0u; i < whole; i++) { sum += exp(vec4f(x[start + i]) - highest); }
  let total = dot(sum, vec4f(1));
  let factor = nan_unless(1.0 / total, is_finite(total)); // see softmax.wgsl
  // On a processor a store costs twice a load and an exp() together: better exp() again than to store in between.
  for (var i = 0u; i < whole; i++) {
    x[start + i] = vec4<T1>(exp(vec4f(x[start + i]) - highest) * factor);
  }
  x[start + whole] = vec4<T1>(select(vec4f(0), edge_value * factor, seen));
  for (var i = whole + 1u; i < width; i++) { x[start + i] = vec4<T1>(); }
}

fn softmax_backward(row: u32, valid: u32) {
  let width = p.length / 4u;
  let start = row * width;
  let last = seen_of(row, valid) - 1u;
  let whole = last / 4u;
  let seen = vec4u(0, 1, 2, 3) <= vec4u(last % 4u);
  // Behind the last score dx may be infinite: it is left out, not multiplied with y's 0.
  let edge = select(vec4f(0), vec4f(dx[start + whole]), seen);
  let edge_y = vec4f(y[start + whole]);
  var products = edge_y * edge;
  for (var i = 0u; i < whole; i++) { products += vec4f(y[start + i]) * vec4f(dx[start + i]); }
  let sum = dot(products, vec4f(1));
  for (var i = 0u; i < whole; i++) {
    dx[start + i] = vec4<T1>(vec4f(y[start + i]) * (vec4f(dx[start + i]) - sum));
  }
  dx[start + whole] = vec4<T1>(select(vec4f(0), edge_y * (edge - sum), seen));
  for (var i = whole + 1u; i < width; i++) { dx[start + i] = vec4<T1>(); }
}
