/** Batches of images: the shape that models take them in, scaled as others scale them, and drawn in an order by seed. */
import { type Batch, expectSamples } from "./data.ts";
import { generator } from "../random.ts";

/** An image: rows of pixels from the top, each red, green, blue from 0 to 1. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly rgb: Float32Array;
}

/** Means and deviations of ImageNet's colours, which the public weights were trained with. */
const means = [0.485, 0.456, 0.406], deviations = [0.229, 0.224, 0.225];

/** The colours, from 0 to 1, as models take them: of mean 0 and deviation 1 over ImageNet. In place. */
export function normalise(rgb: Float32Array): Float32Array {
  for (let i = 0; i < rgb.length; i++) rgb[i] = (rgb[i] - means[i % 3]) / deviations[i % 3];
  return rgb;
}

/**
 * The largest square in the middle of an image, scaled to `size` x `size`: each pixel of the result is the average of those
 * it covers, with weights that fall off linearly (the triangle filter, "bilinear with antialiasing"). This is Pillow's
 * `ImageOps.fit` with `BILINEAR`, and torchvision's `Resize` and `CenterCrop` but for their rounding to whole pixels.
 */
export function resizeAndCrop({ width, height, rgb }: Image, size: number): Float32Array {
  const scale = Math.min(width, height) / size;
  const columns = averages(width, size, scale), rows = averages(height, size, scale);
  // First along the rows, for the rows that count: what comes in between is small.
  const top = rows[0].first, bottom = rows[size - 1].first + rows[size - 1].weights.length;
  const narrow = new Float32Array((bottom - top) * size * 3);
  for (let row = top; row < bottom; row++) {
    average(narrow, (row - top) * size * 3, columns, rgb, row * width * 3, 3, 3);
  }
  const out = new Float32Array(size * size * 3);
  for (const [row, { first, weights }] of rows.entries()) {
    average(out, row * size * 3, [{ first: first - top, weights }], narrow, 0, size * 3, size * 3);
  }
  return out;
}

/** What a pixel of the result is made of, along one axis: neighbours from `first` on, with weights that add up to 1. */
interface Average {
  readonly first: number;
  readonly weights: Float64Array;
}

/** The `size` averages over the middle of an axis of `length` pixels, each `scale` wide. */
function averages(length: number, size: number, scale: number): Average[] {
  const offset = (length - size * scale) / 2;
  const reach = Math.max(1, scale); // enlarged, a pixel lies between two
  return Array.from({ length: size }, (_, index) => {
    const centre = offset + (index + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach + 0.5)),
      end = Math.min(length, Math.floor(centre + reach + 0.5));
    const weights = Float64Array.from(
      { length: end - first },
      (_, i) => Math.max(0, 1 - Math.abs(first + i + 0.5 - centre) / reach),
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Writes averages one after another from `target` on: each of `count` numbers, of neighbours that lie `step` apart. */
function average(
  out: Float32Array,
  target: number,
  parts: readonly Average[],
  values: Float32Array,
  start: number,
  step: number,
  count: number,
): void {
  for (const { first, weights } of parts) {
    for (let i = 0; i < count; i++, target++) {
      let sum = 0;
      for (let j = 0, at = start + first * step + i; j < weights.length; j++, at += step) {
        sum += weights[j] * values[at];
      }
      out[target] = sum;
    }
  }
}

/**
 * Draws from `count` samples without end, so many at a time: each once before any comes again, in an order that depends on
 * `seed`.
 */
export function shuffled(count: number, seed: number): (samples: number) => number[] {
  const random = generator(`images:${seed}`);
  const order = Array.from({ length: count }, (_, i) => i);
  let position = count;
  const draw = () => {
    if (position === count) {
      position = 0;
      for (let i = count - 1; i > 0; i--) { // Fisher and Yates
        const j = random.integer(i + 1);
        [order[i], order[j]] = [order[j], order[i]];
      }
    }
    return order[position++];
  };
  return (samples) => {
    expectSamples(samples);
    return Array.from({ length: samples }, draw);
  };
}

/** Samples side by side. */
export function batchOf(samples: readonly { pixels: Float32Array; target: number }[]): Batch {
  const length = samples[0]?.pixels.length ?? 0;
  const inputs = new Float32Array(samples.length * length);
  samples.forEach(({ pixels }, index) => inputs.set(pixels, index * length));
  return { samples: samples.length, inputs, targets: Uint32Array.from(samples, ({ target }) => target) };
}
