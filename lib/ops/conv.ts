/**
 * Two-dimensional convolution of images, as a matrix product over the patches that the window sees (im2col; Chellapilla, Puri,
 * Simard, 2006).
 *
 * Images are [samples, height, width, channels] ("NHWC"): a patch is then a row of stretches of channels, which vec4 copies and
 * the products read in order; a 1 x 1 convolution is a product as it stands; and the channel is the column that
 * normalisation sums up. Weights are [size, size, inputs, outputs], which is the matrix [size * size * inputs, outputs].
 */
import type { GpuInfo } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { bytesOf, empty, release, sizeOf, type Tensor } from "../tensor.ts";
import { type Candidate, defineOperation, type Operation, roughly } from "./choice.ts";
import { lanes } from "./elementwise.ts";
import { matmul, matmulBatched, type Matrices } from "./matmul.ts";
import { usual } from "./usual.ts";
import { rowKernel, type RowVariant } from "./variants.ts";
import { expectImages, type Window, windowedShape, windowParameters } from "./windows.ts";

/** How far the window moves and how much it may stand over. */
export type ConvOptions = Omit<Window, "size">;

const columnsKernel = rowKernel("conv", "columns");
const imagesKernel = rowKernel("conv", "images");

/**
 * Bytes of patches that are laid out at once: samples are taken in chunks where all of them would be more, one by one at the
 * least. On lavapipe chunks of 1, 4 and 32 MiB are equally fast.
 */
export const mostColumnBytes = 32 * 2 ** 20;

/**
 * `y[n, oh, ow, o] = sum over a, b, c of x[n, oh * stride + a - padding, ow * stride + b - padding, c] * weight[a, b, c, o]`,
 * x counting as 0 outside. y: [N, H', W', O]; x: [N, H, W, C]; weight: [K, K, C, O].
 */
export function conv2d(y: Tensor, x: Tensor, weight: Tensor, options: ConvOptions): void {
  const window = windowOf("conv2d", x.shape, y, weight, options);
  if (isProduct(window)) matmul(y, x, weight);
  else forwardOperation.run({ y, x, weight, window });
}

const forwardOperation = convolution("conv2d", "y", (variant, { y, x, weight, window }) => {
  inChunks(x.shape, y.shape, weight, window, x, (patches, first, samples) => {
    layOut(variant, patches, x, first, y.shape, window, samples);
    matmulBatched(part(y, first, samples), all(patches), all(weight), [1, 1]);
  });
}, ({ y, x, weight, window }) => convolve(y, x, weight, window, 0));

/** The gradient of {@link conv2d} with respect to x. dx: [N, H, W, C]; dy: [N, H', W', O]; weight: [K, K, C, O]. */
export function conv2dBackwardInput(dx: Tensor, dy: Tensor, weight: Tensor, options: ConvOptions): void {
  const window = windowOf("conv2dBackwardInput", dx.shape, dy, weight, options);
  if (isProduct(window)) matmul(dx, dy, weight, { transposeB: true });
  else inputOperation.run({ y: dy, x: dx, weight, window });
}

const inputOperation = convolution("conv2dBackwardInput", "x", (variant, { y, x, weight, window }) => {
  inChunks(x.shape, y.shape, weight, window, { device: x.device, dtype: "f32" }, (patches, first, samples) => {
    matmulBatched(all(patches), part(y, first, samples), all(weight), [1, 1], { transposeB: true });
    const [, height, width, channels] = x.shape;
    const rows = samples * height * width;
    const { kernel: gather, perLane, grid } = imagesKernel(x.device, rows, channels, variant);
    const parameters = { rows, width: channels / perLane, first, ...windowParameters(x.shape, y.shape, window) };
    x.device.dispatch(gather, parameters, [x, patches], grid);
  });
}, ({ y, x, weight, window }) => convolve(x, y, weight, window, 1));

/**
 * The gradient of {@link conv2d} with respect to the weight, added to `dweight`. dweight: [K, K, C, O]; dy: [N, H', W', O];
 * x: [N, H, W, C].
 */
export function conv2dBackwardWeight(dweight: Tensor, dy: Tensor, x: Tensor, options: ConvOptions): void {
  const window = windowOf("conv2dBackwardWeight", x.shape, dy, dweight, options);
  if (isProduct(window)) matmul(dweight, x, dy, product);
  else weightOperation.run({ y: dy, x, weight: dweight, window });
}

const product = { transposeA: true, accumulate: true };
const weightOperation = convolution("conv2dBackwardWeight", "weight", (variant, { y, x, weight, window }) => {
  inChunks(x.shape, y.shape, weight, window, x, (patches, first, samples) => {
    layOut(variant, patches, x, first, y.shape, window, samples);
    matmulBatched(all(weight), all(patches), part(y, first, samples), [1, 1], product);
  });
});

/** A convolution or one of its gradients, checked: y, x and the weight, or their gradients. */
interface Problem {
  readonly y: Tensor;
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly window: Window;
}

/**
 * What computes one of the three tensors from the others: over patches that are laid out by a row variant, or, if given, by the
 * kernel that reads them where they lie.
 */
function convolution(
  name: string,
  result: "y" | "x" | "weight",
  overPatches: (variant: RowVariant, problem: Problem) => void,
  implicit?: (problem: Problem) => void,
): Operation<Problem> {
  const patches = (variant: RowVariant): Candidate<Problem> => ({
    name: `patches ${variant}`,
    supports: (_, { x }) => variant !== "vec4" || x.shape[3] % 4 === 0,
    record: (problem) => overPatches(variant, problem),
  });
  return defineOperation({
    name,
    candidates: [
      ...(["plain", "vec4", "group"] as const).map(patches),
      ...implicit ? [{ name: "conv_subgroup:convolve", supports: servesImplicit, record: implicit }] : [],
    ],
    classOf({ y, x, weight, window: { size, stride } }) {
      const types = [y, x, weight].map(({ dtype }) => dtype).join(" ");
      const odd = x.shape[3] % 4 || y.shape[3] % 4 ? " odd" : "";
      return `${roughly(sizeOf(x.shape.slice(0, 3)), x.shape[3], y.shape[3])} ${size}x${size}/${stride} ${types}${odd}`;
    },
    rule: ({ kind }, { y }) => usual[kind].convolution(y.shape[3]),
    outputs: (problem) => [problem[result]],
    flops: ({ y, weight }) => 2 * sizeOf(y.shape) * sizeOf(weight.shape.slice(0, 3)),
  });
}

/** The window of a convolution, once all shapes are checked against the input's. */
function windowOf(
  operation: string,
  inputShape: readonly number[],
  output: Tensor,
  weight: Tensor,
  { stride, padding }: ConvOptions,
): Window {
  const [size, , , outputs] = weight.shape;
  const window = { size, stride, padding };
  expectImages(operation, "the weight", weight, [size, size, inputShape[3], outputs], "float");
  expectImages(operation, "the output", output, windowedShape(inputShape, window, outputs), "float");
  return window;
}

/** Whether the patches are the image itself. */
function isProduct({ size, stride, padding }: Window): boolean {
  return size === 1 && stride === 1 && padding === 0;
}

/** Whether the kernel that reads patches where they lie serves this device and these channels. */
function servesImplicit({ subgroupSize }: GpuInfo, { x, y }: Problem): boolean {
  return [4, 8, 16].includes(subgroupSize) && x.shape[3] % 4 === 0 && y.shape[3] % 4 === 0;
}

/** Records conv_subgroup.wgsl, forward or, with `transpose`, the input gradient. */
function convolve(to: Tensor, images: Tensor, weight: Tensor, window: Window, transpose: 0 | 1) {
  const { device, shape } = to;
  const LANES = device.gpu.info.subgroupSize;
  const key = 2 * LANES + transpose;
  let implicit = implicitKernels.get(key);
  if (!implicit) {
    implicit = kernel("conv_subgroup", "convolve", { LANES, TRANSPOSE: transpose });
    implicitKernels.set(key, implicit);
  }
  const [samples, height, width, columns] = shape;
  const parameters = {
    rows: samples * height * width,
    width: images.shape[3] / 4,
    columns,
    ...windowParameters(images.shape, shape, window),
  };
  const step = transpose ? window.stride : 1; // pixels of one product are so far apart
  const rows = samples * Math.ceil(height / step) * Math.ceil(width / step);
  const [x, y] = lanes(Math.ceil(rows / 32) * Math.ceil(columns / (4 * LANES)), 1);
  device.dispatch(implicit, parameters, [to, images, weight], [x, y, step * step]);
}
const implicitKernels = new Map<number, Kernel>();

/**
 * Calls `record` with room for the patches of some samples at a time, until all have had their turn. Copies of what x holds are
 * of its type, sums that are yet to be added up f32.
 */
function inChunks(
  from: readonly number[],
  to: readonly number[],
  weight: Tensor,
  { size }: Window,
  { device, dtype }: Pick<Tensor, "device" | "dtype">,
  record: (patches: Tensor, first: number, samples: number) => void,
) {
  const positions = to[1] * to[2], depth = size * size * weight.shape[2];
  const atOnce = Math.min(from[0], Math.max(1, Math.floor(mostColumnBytes / bytesOf([positions, depth], dtype))));
  for (let first = 0; first < from[0]; first += atOnce) {
    const samples = Math.min(atOnce, from[0] - first);
    const patches = empty(device, [samples * positions, depth], "workspace", dtype);
    record(patches, first, samples);
    release(patches); // reused at the earliest by a kernel recorded after these
  }
}

/** Writes the patches of `samples` images from number `first` on. */
function layOut(
  variant: RowVariant,
  patches: Tensor,
  x: Tensor,
  first: number,
  to: readonly number[],
  window: Window,
  samples: number,
) {
  const channels = x.shape[3];
  const rows = samples * to[1] * to[2] * window.size ** 2;
  const { kernel: copy, perLane, grid } = columnsKernel(x.device, rows, channels, variant);
  x.device.dispatch(
    copy,
    { rows, width: channels / perLane, first, ...windowParameters(x.shape, to, window) },
    [patches, x],
    grid,
  );
}

/** A tensor as the matrix of its last axis. */
function all(tensor: Tensor): Matrices {
  const columns = tensor.shape[tensor.shape.length - 1];
  return { tensor, rows: sizeOf(tensor.shape) / columns, columns, rowStride: columns, offset: 0, strides: [0, 0] };
}

/** The pixels of `samples` images from number `first` on, as the matrix of their channels. */
function part(images: Tensor, first: number, samples: number): Matrices {
  const [, height, width] = images.shape;
  const whole = all(images);
  return { ...whole, rows: samples * height * width, offset: first * height * width * whole.columns };
}
