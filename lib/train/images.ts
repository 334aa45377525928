/** Batches of images: the shape that models take them in, cut and scaled as others do it. */
import type { Batch } from "./data.ts";

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

/** A rectangle of an image, in pixels from its top left, which need not be whole. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** The largest square in the middle of an image. */
export function middle({ width, height }: Pick<Image, "width" | "height">): Box {
  const side = Math.min(width, height);
  return { left: (width - side) / 2, top: (height - side) / 2, width: side, height: side };
}

/**
 * A part of an image, by default the largest square in its middle, scaled to `size` x `size`: each pixel of the result is the average of
 * those it covers, with weights that fall off linearly (the triangle filter, "bilinear with antialiasing"). This is Pillow's
 * `resize` with `BILINEAR` and a `box`, in the middle its `ImageOps.fit`, and torchvision's `Resize` and `CenterCrop` but for their
 * rounding to whole pixels.
 */
export function resizeAndCrop(image: Image, size: number, box: Box = middle(image)): Float32Array {
  const { width, rgb } = image;
  const columns = averages(box.left, box.left + box.width, width, size);
  const rows = averages(box.top, box.top + box.height, image.height, size);
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

/** The mirror image of `size` x `size` pixels, left and right changed, in place. */
export function mirror(rgb: Float32Array, size: number): Float32Array {
  for (let row = 0; row < size; row++) {
    for (let left = 0, right = size - 1; left < right; left++, right--) {
      for (let colour = 0; colour < 3; colour++) {
        const i = (row * size + left) * 3 + colour, j = (row * size + right) * 3 + colour;
        [rgb[i], rgb[j]] = [rgb[j], rgb[i]];
      }
    }
  }
  return rgb;
}

/** What a pixel of the result is made of, along one axis: neighbours from `first` on, with weights that add up to 1. */
interface Average {
  readonly first: number;
  readonly weights: Float64Array;
}

/** The `size` averages over an axis of `length` pixels, from `start` to `stop` of it. */
function averages(start: number, stop: number, length: number, size: number): Average[] {
  const scale = (stop - start) / size;
  const reach = Math.max(1, scale); // enlarged, a pixel lies between two
  return Array.from({ length: size }, (_, index) => {
    const centre = start + (index + 0.5) * scale;
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

/** Samples side by side. */
export function batchOf(samples: readonly { pixels: Float32Array; target: number }[]): Batch {
  const length = samples[0]?.pixels.length ?? 0;
  const inputs = new Float32Array(samples.length * length);
  samples.forEach(({ pixels }, index) => inputs.set(pixels, index * length));
  return { samples: samples.length, inputs, targets: Uint32Array.from(samples, ({ target }) => target) };
}
