/** RMSNorm in float64: `y = gain * x * rstd`, `rstd = 1 / sqrt(mean(x^2) + epsilon)` over each row of `gain.length`. */
export function rmsNorm(x: ArrayLike<number>, gain: ArrayLike<number>, epsilon = 1e-5) {
  const width = gain.length;
  const rows = x.length / width;
  const y = new Float64Array(x.length);
  const rstd = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let squares = 0;
    for (let c = 0; c < width; c++) squares += x[r * width + c] ** 2;
    rstd[r] = 1 / Math.sqrt(squares / width + epsilon);
    for (let c = 0; c < width; c++) y[r * width + c] = gain[c] * x[r * width + c] * rstd[r];
  }
  return { y, rstd };
}

/** Gradients of {@link rmsNorm} with respect to x and the gain, given that of y. */
export function rmsNormBackward(
  dy: ArrayLike<number>,
  x: ArrayLike<number>,
  rstd: ArrayLike<number>,
  gain: ArrayLike<number>,
) {
  const width = gain.length;
  const dx = new Float64Array(x.length);
  const dgain = new Float64Array(width);
  for (let r = 0; r < rstd.length; r++) {
    let along = 0; // mean of (dy * gain) * normalised x
    for (let c = 0; c < width; c++) along += dy[r * width + c] * gain[c] * x[r * width + c] * rstd[r] / width;
    for (let c = 0; c < width; c++) {
      const i = r * width + c;
      dx[i] = rstd[r] * (dy[i] * gain[c] - x[i] * rstd[r] * along);
      dgain[c] += dy[i] * x[i] * rstd[r];
    }
  }
  return { dx, dgain };
}
