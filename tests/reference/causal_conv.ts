const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));

/** `silu(bias + sum over k of weight[k] * x[t - 3 + k])` in float64, x being 0 before a sequence. x: [R, C]; weight: [C, 4]; bias: [C]. */
export function causalConv(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  length: number,
): Float64Array {
  return before(x, weight, bias, length).map((pre) => pre * sigmoid(pre));
}

/** Gradients of {@link causalConv}, those of the parameters summed over each sequence: [S, C, 4] and [S, C]. */
export function causalConvBackward(
  dy: ArrayLike<number>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  length: number,
) {
  const channels = bias.length;
  const sequences = x.length / channels / length;
  const dx = new Float64Array(x.length);
  const dweight = new Float64Array(sequences * channels * 4);
  const dbias = new Float64Array(sequences * channels);
  before(x, weight, bias, length).forEach((pre, i) => {
    const row = Math.floor(i / channels), channel = i % channels;
    const sequence = Math.floor(row / length);
    const s = sigmoid(pre);
    const dpre = dy[i] * (s + pre * s * (1 - s));
    for (let k = 0; k < 4; k++) {
      const from = i + (k - 3) * channels, inside = row % length - 3 + k >= 0;
      if (inside) dx[from] += dpre * weight[channel * 4 + k];
      dweight[(sequence * channels + channel) * 4 + k] += dpre * (inside ? x[from] : 0);
    }
    dbias[sequence * channels + channel] += dpre;
  });
  return { dx, dweight, dbias };
}

function before(x: ArrayLike<number>, weight: ArrayLike<number>, bias: ArrayLike<number>, length: number) {
  const channels = bias.length;
  return Float64Array.from(x, (_, i) => {
    const row = Math.floor(i / channels), channel = i % channels;
    let sum = bias[channel];
    for (let k = 0; k < 4; k++) {
      const inside = row % length - 3 + k >= 0;
      sum += weight[channel * 4 + k] * (inside ? x[i + (k - 3) * channels] : 0);
    }
    return sum;
  });
}
