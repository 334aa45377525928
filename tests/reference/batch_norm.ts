const epsilon = 1e-5;

/** BatchNorm in float64 over each column of x [rows, gain.length]; the variance is the biased one. */
export function batchNorm(x: ArrayLike<number>, gain: ArrayLike<number>, bias: ArrayLike<number>) {
  const width = gain.length, rows = x.length / width;
  const mean = new Float64Array(width), variance = new Float64Array(width);
  for (let i = 0; i < x.length; i++) mean[i % width] += x[i] / rows;
  for (let i = 0; i < x.length; i++) variance[i % width] += (x[i] - mean[i % width]) ** 2 / rows;
  const rstd = variance.map((value) => 1 / Math.sqrt(value + epsilon));
  const y = Float64Array.from(
    x,
    (value, i) => gain[i % width] * (value - mean[i % width]) * rstd[i % width] + bias[i % width],
  );
  return { y, mean, variance, rstd };
}

/** What PyTorch makes of its running statistics after one more batch. */
export function updateRunning(
  running: { mean: ArrayLike<number>; variance: ArrayLike<number> },
  batch: { mean: Float64Array; variance: Float64Array },
  rows: number,
) {
  return {
    mean: batch.mean.map((value, c) => 0.9 * running.mean[c] + 0.1 * value),
    variance: batch.variance.map((value, c) => 0.9 * running.variance[c] + 0.1 * value * rows / (rows - 1)),
  };
}

/** Gradients of {@link batchNorm} with respect to x, gain and bias, given that of y. */
export function batchNormBackward(dy: ArrayLike<number>, x: ArrayLike<number>, gain: ArrayLike<number>) {
  const width = gain.length, rows = x.length / width;
  const { mean, rstd } = batchNorm(x, gain, gain);
  const dgain = new Float64Array(width), dbias = new Float64Array(width);
  const normalised = Float64Array.from(x, (value, i) => (value - mean[i % width]) * rstd[i % width]);
  for (let i = 0; i < x.length; i++) {
    dgain[i % width] += dy[i] * normalised[i];
    dbias[i % width] += dy[i];
  }
  const dx = Float64Array.from(x, (_, i) => {
    const c = i % width;
    return gain[c] * rstd[c] * (dy[i] - dbias[c] / rows - normalised[i] * dgain[c] / rows);
  });
  return { dx, dgain, dbias };
}
