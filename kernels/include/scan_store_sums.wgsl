// Stores the sums over the chunks of a dispatch in `sums`, added to those of the chunks behind them: a dispatch that takes
// the last chunk is the first of its sequence.
fn store_sums(at: u32, last: bool, a: array<vec4f, VECTORS>, da: array<vec4f, VECTORS>, d_sum: f32, bias_sum: f32) {
  for (var v = 0u; v < VECTORS; v++) {
    var sum = LN2 * a[v] * da[v];
    if (!last) { sum += sums[at + v]; }
    sums[at + v] = sum;
  }
  var sum = vec4f(d_sum, bias_sum, 0.0, 0.0);
  if (!last) { sum += sums[at + VECTORS]; }
  sums[at + VECTORS] = sum;
}
