import type { RopeShape } from "../../lib/ops/rope.ts";

/**
 * How fast each pair of a head of so many features turns. With `scaling` (Hugging Face's "llama3"), pairs whose waves are longer
 * than the original length over the low factor are slowed down by the factor, those whose waves are shorter than the length over
 * the high factor keep their speed, and those in between are a mixture.
 */
export function frequencies(size: number, { base = 10_000, scaling }: Pick<RopeShape, "base" | "scaling">): number[] {
  return Array.from({ length: size / 2 }, (_, i) => {
    const frequency = base ** (-2 * i / size);
    if (!scaling) return frequency;
    const { factor, lowFrequencyFactor, highFrequencyFactor, originalLength } = scaling;
    const wave = 2 * Math.PI / frequency;
    if (wave > originalLength / lowFrequencyFactor) return frequency / factor;
    if (wave < originalLength / highFrequencyFactor) return frequency;
    const smooth = (originalLength / wave - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
    return (1 - smooth) * frequency / factor + smooth * frequency;
  });
}

/** Rotary position embedding in float64, out of place; `direction` -1 is its backward. */
export function rope(x: ArrayLike<number>, shape: RopeShape, direction: 1 | -1 = 1): Float64Array {
  const { length, heads, headSize, rowStride } = shape;
  const speeds = frequencies(headSize, shape);
  const y = Float64Array.from(x);
  for (let row = 0; row < x.length / rowStride; row++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < headSize / 2; i++) {
        const angle = direction * (row % length) * speeds[i];
        const low = row * rowStride + head * headSize + i;
        const high = low + headSize / 2;
        y[low] = x[low] * Math.cos(angle) - x[high] * Math.sin(angle);
        y[high] = x[high] * Math.cos(angle) + x[low] * Math.sin(angle);
      }
    }
  }
  return y;
}
