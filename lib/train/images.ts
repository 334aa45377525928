/** Batches of images: the shape that models take them in, and a source of samples drawn by seed. */
import { type Batch, type BatchSource, expectSamples } from "./data.ts";
import { generator } from "./random.ts";

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

/** Scales an image (bilinear) until its shorter side has `size` pixels, and cuts `size` x `size` from its middle. */
export function resizeAndCrop({ width, height, rgb }: Image, size: number): Float32Array {
  const scale = Math.min(width, height) / size;
  const out = new Float32Array(size * size * 3);
  for (let row = 0; row < size; row++) {
    const [top, bottom, down] = neighbours(row, size, height, scale);
    for (let column = 0; column < size; column++) {
      const [left, right, across] = neighbours(column, size, width, scale);
      for (let colour = 0; colour < 3; colour++) {
        const at = (y: number, x: number) => rgb[(y * width + x) * 3 + colour];
        const above = at(top, left) * (1 - across) + at(top, right) * across;
        const below = at(bottom, left) * (1 - across) + at(bottom, right) * across;
        out[(row * size + column) * 3 + colour] = above * (1 - down) + below * down;
      }
    }
  }
  return out;
}

/** Which two pixels of an axis of `length` a pixel of the result lies between, and how far from the first. */
function neighbours(index: number, size: number, length: number, scale: number): [number, number, number] {
  const offset = (length - size * scale) / 2;
  const at = Math.min(length - 1, Math.max(0, offset + (index + 0.5) * scale - 0.5));
  const first = Math.floor(at);
  return [first, Math.min(length - 1, first + 1), at - first];
}

/**
 * Draws from `count` samples without end, each once before any comes again, in an order that depends on `seed`. `load` gives a
 * sample's pixels, [size, size, 3], and its class.
 */
export function shuffled(
  count: number,
  seed: number,
  load: (index: number) => { pixels: Float32Array; target: number },
): BatchSource {
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
    return load(order[position++]);
  };
  return {
    next(samples) {
      expectSamples(samples);
      return batchOf(Array.from({ length: samples }, draw));
    },
  };
}

/** Samples side by side. */
export function batchOf(samples: readonly { pixels: Float32Array; target: number }[]): Batch {
  const length = samples[0]?.pixels.length ?? 0;
  const inputs = new Float32Array(samples.length * length);
  samples.forEach(({ pixels }, index) => inputs.set(pixels, index * length));
  return { samples: samples.length, inputs, targets: Uint32Array.from(samples, ({ target }) => target) };
}
