import type { ConvOptions } from "../../lib/ops/conv.ts";

/** Shapes of a convolution: x [samples, height, width, inputs], weight [size, size, inputs, outputs]. */
export interface ConvShape extends ConvOptions {
  readonly samples: number;
  readonly height: number;
  readonly width: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly size: number;
}

/** Height and width of the result. */
export function convOutput({ height, width, size, stride, padding }: ConvShape): [number, number] {
  const along = (length: number) => Math.floor((length + 2 * padding - size) / stride) + 1;
  return [along(height), along(width)];
}

/** Calls `f` with the indices (of x, weight and y) of every product in a convolution; outside the image there is no x. */
function forEachProduct(shape: ConvShape, f: (x: number | undefined, weight: number, y: number) => void) {
  const { samples, height, width, inputs, outputs, size, stride, padding } = shape;
  const [outHeight, outWidth] = convOutput(shape);
  for (let n = 0; n < samples; n++) {
    for (let oh = 0; oh < outHeight; oh++) {
      for (let ow = 0; ow < outWidth; ow++) {
        for (let a = 0; a < size; a++) {
          for (let b = 0; b < size; b++) {
            const h = oh * stride + a - padding, w = ow * stride + b - padding;
            const inside = h >= 0 && h < height && w >= 0 && w < width;
            for (let c = 0; c < inputs; c++) {
              for (let o = 0; o < outputs; o++) {
                f(
                  inside ? ((n * height + h) * width + w) * inputs + c : undefined,
                  ((a * size + b) * inputs + c) * outputs + o,
                  ((n * outHeight + oh) * outWidth + ow) * outputs + o,
                );
              }
            }
          }
        }
      }
    }
  }
}

/** Two-dimensional convolution in float64; x is 0 outside. */
export function conv2d(x: ArrayLike<number>, weight: ArrayLike<number>, shape: ConvShape): Float64Array {
  const [outHeight, outWidth] = convOutput(shape);
  const y = new Float64Array(shape.samples * outHeight * outWidth * shape.outputs);
  forEachProduct(shape, (i, j, k) => y[k] += (i === undefined ? 0 : x[i]) * weight[j]);
  return y;
}

/** Gradients of {@link conv2d} with respect to x and weight, given that of y. */
export function conv2dBackward(
  dy: ArrayLike<number>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  shape: ConvShape,
) {
  const dx = new Float64Array(x.length), dweight = new Float64Array(weight.length);
  forEachProduct(shape, (i, j, k) => {
    if (i !== undefined) dx[i] += dy[k] * weight[j];
    dweight[j] += dy[k] * (i === undefined ? 0 : x[i]);
  });
  return { dx, dweight };
}
