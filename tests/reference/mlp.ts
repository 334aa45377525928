/** A perceptron in float64. */

/** y = x W + b of rows; weight [inputs, outputs]. */
export function affine(x: ArrayLike<number>, weight: ArrayLike<number>, bias: ArrayLike<number>): Float64Array {
  const outputs = bias.length, inputs = weight.length / outputs;
  return Float64Array.from({ length: x.length / inputs * outputs }, (_, i) => {
    const row = Math.floor(i / outputs), column = i % outputs;
    let sum = bias[column];
    for (let k = 0; k < inputs; k++) sum += x[row * inputs + k] * weight[k * outputs + column];
    return sum;
  });
}

/** Huber's loss of one error (Huber, 1964): half its square up to `delta`, and beyond it the tangent. */
export function huber(error: number, delta: number): number {
  const size = Math.abs(error);
  return size <= delta ? error * error / 2 : delta * (size - delta / 2);
}
