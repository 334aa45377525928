/** `x + bias` for each row, as long as the bias, in float64. */
export function addBias(x: ArrayLike<number>, bias: ArrayLike<number>): Float64Array {
  return Float64Array.from(x, (value, i) => value + bias[i % bias.length]);
}

/** The sum of each column of rows `width` long, in float64: the gradient of {@link addBias} with respect to the bias. */
export function columnSum(dy: ArrayLike<number>, width: number): Float64Array {
  const sums = new Float64Array(width);
  for (let i = 0; i < dy.length; i++) sums[i % width] += dy[i];
  return sums;
}
