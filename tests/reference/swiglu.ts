const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));

/** `out = silu(gate) * up` in float64 for rows [gate | up], each half `width` long. */
export function swiglu(gateUp: ArrayLike<number>, width: number): Float64Array {
  return Float64Array.from({ length: gateUp.length / 2 }, (_, i) => {
    const at = Math.floor(i / width) * 2 * width + i % width;
    return gateUp[at] * sigmoid(gateUp[at]) * gateUp[at + width];
  });
}

/** The gradient of {@link swiglu} with respect to gateUp. */
export function swigluBackward(dout: ArrayLike<number>, gateUp: ArrayLike<number>, width: number): Float64Array {
  const dGateUp = new Float64Array(gateUp.length);
  for (let i = 0; i < dout.length; i++) {
    const at = Math.floor(i / width) * 2 * width + i % width;
    const gate = gateUp[at], up = gateUp[at + width], s = sigmoid(gate);
    dGateUp[at] = dout[i] * up * (s + gate * s * (1 - s));
    dGateUp[at + width] = dout[i] * gate * s;
  }
  return dGateUp;
}
