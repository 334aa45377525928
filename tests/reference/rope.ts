import type { RopeShape } from "../../lib/ops/rope.ts";

/** Rotary position embedding in float64, out of place; `direction` -1 is its backward. */
export function rope(x: ArrayLike<number>, shape: RopeShape, direction: 1 | -1 = 1): Float64Array {
  const { length, heads, headSize, rowStride, base = 10_000 } = shape;
  const y = Float64Array.from(x);
  for (let row = 0; row < x.length / rowStride; row++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < headSize / 2; i++) {
        const angle = direction * (row % length) * base ** (-2 * i / headSize);
        const low = row * rowStride + head * headSize + i;
        const high = low + headSize / 2;
        y[low] = x[low] * Math.cos(angle) - x[high] * Math.sin(angle);
        y[high] = x[high] * Math.cos(angle) + x[low] * Math.sin(angle);
      }
    }
  }
  return y;
}
