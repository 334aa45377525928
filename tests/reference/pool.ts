import type { Window } from "../../lib/ops/windows.ts";

/** Max pooling of images [samples, height, width, channels]; `from` is the index in x of each value of y. As in PyTorch the last NaN is the largest. */
export function maxPool(x: ArrayLike<number>, shape: readonly number[], { size, stride, padding }: Window) {
  const [samples, height, width, channels] = shape;
  const along = (length: number) => Math.floor((length + 2 * padding - size) / stride) + 1;
  const [outHeight, outWidth] = [along(height), along(width)];
  const y = new Float64Array(samples * outHeight * outWidth * channels);
  const from = new Uint32Array(y.length);
  for (let i = 0; i < y.length; i++) {
    let none = true;
    const c = i % channels, ow = Math.floor(i / channels) % outWidth;
    const oh = Math.floor(i / channels / outWidth) % outHeight, n = Math.floor(i / channels / outWidth / outHeight);
    for (let h = Math.max(0, oh * stride - padding); h < Math.min(height, oh * stride - padding + size); h++) {
      for (let w = Math.max(0, ow * stride - padding); w < Math.min(width, ow * stride - padding + size); w++) {
        const at = ((n * height + h) * width + w) * channels + c;
        if (none || x[at] > y[i] || Number.isNaN(x[at])) {
          none = false;
          y[i] = x[at];
          from[i] = at;
        }
      }
    }
  }
  return { y, from, shape: [samples, outHeight, outWidth, channels] };
}

/** The gradient of {@link maxPool} with respect to x, which has `count` elements. */
export function maxPoolBackward(dy: ArrayLike<number>, from: Uint32Array, count: number): Float64Array {
  const dx = new Float64Array(count);
  from.forEach((at, i) => dx[at] += dy[i]);
  return dx;
}

/** Means of each channel over all pixels of a sample. */
export function averagePool(x: ArrayLike<number>, shape: readonly number[]): Float64Array {
  const [samples, height, width, channels] = shape;
  const y = new Float64Array(samples * channels);
  for (let i = 0; i < x.length; i++) {
    y[Math.floor(i / (height * width * channels)) * channels + i % channels] += x[i] / (height * width);
  }
  return y;
}

/** The gradient of {@link averagePool} with respect to x. */
export function averagePoolBackward(dy: ArrayLike<number>, shape: readonly number[]): Float64Array {
  const [samples, height, width, channels] = shape;
  return Float64Array.from(
    { length: samples * height * width * channels },
    (_, i) => dy[Math.floor(i / (height * width * channels)) * channels + i % channels] / (height * width),
  );
}
