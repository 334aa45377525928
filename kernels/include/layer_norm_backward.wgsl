// LayerNorm, input gradient, where one invocation takes a row.
// With g = dy * gain and n = (x - mean) * rstd:  dx = rstd * (g - mean(g) - n * mean(g * n))
@compute @workgroup_size(WORKGROUP)
fn backward_input(${place}) {
  let row = ${row};
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let mean = statistics[row].x;
  let rstd = statistics[row].y;
  var sum = ${zero};
  var products = ${zero};
  for (var i = 0u; i < p.width; i++) {
    let g = ${V}(dy[start + i]) * ${V}(gain_in[i]);
    sum += g;
    products += g * (${V}(x_in[start + i]) - mean);
  }
  let level = ${total(sum)} / ${count} * rstd;
  let along = ${total(products)} / ${count} * rstd * rstd * rstd;
  for (var i = 0u; i < p.width; i++) {
    let g = ${V}(dy[start + i]) * ${V}(gain_in[i]);
    dx[start + i] = ${of(T1)}(rstd * g - level - along * (${V}(x_in[start + i]) - mean));
  }
}
