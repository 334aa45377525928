/** Softmax over rows of `width`, in float64. */
export function softmax(x: ArrayLike<number>, width: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let highest = -Infinity, sum = 0;
    for (let i = start; i < start + width; i++) highest = Math.max(highest, x[i]);
    for (let i = start; i < start + width; i++) sum += y[i] = Math.exp(x[i] - highest);
    for (let i = start; i < start + width; i++) y[i] /= sum;
  }
  return y;
}

/** dx = y (dy - sum of y dy). */
export function softmaxBackward(dy: ArrayLike<number>, y: ArrayLike<number>, width: number): Float64Array {
  const dx = new Float64Array(y.length);
  for (let start = 0; start < y.length; start += width) {
    let sum = 0;
    for (let i = start; i < start + width; i++) sum += y[i] * dy[i];
    for (let i = start; i < start + width; i++) dx[i] = y[i] * (dy[i] - sum);
  }
  return dx;
}
