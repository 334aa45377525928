/** LayerNorm in float64 over each row of `gain.length`: `y = gain * (x - mean) * rstd + bias`; statistics [rows, 2] are mean, rstd. */
export function layerNorm(
  x: ArrayLike<number>,
  gain: ArrayLike<number>,
  bias: ArrayLike<number>,
  epsilon: number,
) {
  const width = gain.length;
  const rows = x.length / width;
  const y = new Float64Array(x.length);
  const statistics = new Float64Array(2 * rows);
  for (let r = 0; r < rows; r++) {
    let mean = 0, variance = 0;
    for (let c = 0; c < width; c++) mean += x[r * width + c] / width;
    for (let c = 0; c < width; c++) variance += (x[r * width + c] - mean) ** 2 / width;
    const rstd = 1 / Math.sqrt(variance + epsilon);
    statistics.set([mean, rstd], 2 * r);
    for (let c = 0; c < width; c++) y[r * width + c] = gain[c] * (x[r * width + c] - mean) * rstd + bias[c];
  }
  return { y, statistics };
}

/** Gradients of {@link layerNorm} with respect to x, gain and bias, given that of y. */
export function layerNormBackward(
  dy: ArrayLike<number>,
  x: ArrayLike<number>,
  statistics: ArrayLike<number>,
  gain: ArrayLike<number>,
) {
  const width = gain.length;
  const dx = new Float64Array(x.length);
  const dgain = new Float64Array(width), dbias = new Float64Array(width);
  for (let r = 0; r < x.length / width; r++) {
    const mean = statistics[2 * r], rstd = statistics[2 * r + 1];
    let level = 0, along = 0; // means of g = dy * gain, and of g times the normalised x
    for (let c = 0; c < width; c++) {
      const i = r * width + c;
      level += dy[i] * gain[c] / width;
      along += dy[i] * gain[c] * (x[i] - mean) * rstd / width;
    }
    for (let c = 0; c < width; c++) {
      const i = r * width + c;
      const normalised = (x[i] - mean) * rstd;
      dx[i] = rstd * (dy[i] * gain[c] - level - normalised * along);
      dgain[c] += dy[i] * normalised;
      dbias[c] += dy[i];
    }
  }
  return { dx, dgain, dbias };
}
