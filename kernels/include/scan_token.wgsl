// One token of a scan, in a loop over rows: the state h of a channel moves on by its decay rates a, and out has what it gives;
// rest is the channel's D and bias.
let value = f32(x[row * p.channels + channel]);
let dt = softplus(f32(dt_raw[row * p.channels + channel]) + rest.y);
let bc = (row + 1u) * p.projectionStride - 2u * VECTORS;
var sums = vec4f();
for (var v = 0u; v < VECTORS; v++) {
  h[v] = exp2(dt * a[v]) * h[v] + dt * value * vec4f(projection[bc + v]);
  sums += h[v] * vec4f(projection[bc + VECTORS + v]);
}
let y = dot(sums, vec4f(1.0)) + rest.x * value;
let z = f32(gate[(row + 1u) * p.gateStride - p.channels + channel]);
out[row * p.channels + channel] = T1(y * z / (1.0 + exp(-z)));
