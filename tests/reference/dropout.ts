/** What says which elements a dropout drops. */
export interface Mask {
  readonly rate: number;
  /** Of the step. */
  readonly seed: number;
  /** Of the layer. */
  readonly salt: number;
  /** Number of the first row in the whole batch. */
  readonly firstRow: number;
}

/** Dropout of rows of `width` in float64; its gradient is the same function of the output's. */
export function dropout(x: ArrayLike<number>, width: number, { rate, seed, salt, firstRow }: Mask): Float64Array {
  return Float64Array.from(x, (value, i) => {
    const key = mix((mix(seed ^ salt) + firstRow + Math.floor(i / width)) | 0);
    const hash = mix(key ^ Math.imul(i % width, 0x9e3779b9));
    return value * (hash < Math.round(rate * 2 ** 32) ? 0 : 1 / (1 - rate));
  });
}

/** lowbias32 of C. Wellons' hash prospector. */
function mix(value: number): number {
  let h = Math.imul(value ^ (value >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}
