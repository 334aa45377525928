/** The error function in float64: a series where it converges fast, a continued fraction beyond. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z < 3) {
    // 2 / sqrt(pi) * exp(-z^2) * sum of 2^n z^(2n+1) / (2n+1)!!: all terms positive, nothing cancels.
    let term = z, sum = z;
    for (let n = 1; term > 1e-17 * sum; n++) sum += term *= 2 * z * z / (2 * n + 1);
    return Math.sign(x) * 2 / Math.sqrt(Math.PI) * Math.exp(-z * z) * sum;
  }
  let fraction = z;
  for (let n = 60; n > 0; n--) fraction = z + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / fraction);
}

/** GELU in float64: exact, or its approximation by tanh. */
export function gelu(x: ArrayLike<number>, form: "erf" | "tanh"): Float64Array {
  return Float64Array.from(
    x,
    (value) =>
      form === "erf"
        ? value / 2 * (1 + erf(value / Math.SQRT2))
        : value / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))),
  );
}

/** The gradient of {@link gelu} with respect to x. */
export function geluBackward(dout: ArrayLike<number>, x: ArrayLike<number>, form: "erf" | "tanh"): Float64Array {
  return Float64Array.from(x, (value, i) => {
    if (form === "erf") {
      const density = Math.exp(-value * value / 2) / Math.sqrt(2 * Math.PI);
      return dout[i] * ((1 + erf(value / Math.SQRT2)) / 2 + value * density);
    }
    const t = Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3));
    const inner = Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * value ** 2);
    return dout[i] * ((1 + t) / 2 + value / 2 * (1 - t * t) * inner);
  });
}
