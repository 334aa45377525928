/** Pooling of images [samples, height, width, channels]. It has no parameters: p1 only. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape } from "./shapes.ts";
import { rowKernel, rowOperation } from "./variants.ts";
import { expectImages, type Window, windowedShape, windowParameters } from "./windows.ts";

const largest = rowKernel("pool", "largest");
const largestBackward = rowKernel("pool", "largest_backward");
const average = { 1: kernel("pool", "average"), 4: kernel("pool", "average4") };
const averageBackward = rowKernel("pool", "average_backward");

/**
 * The largest value in each position of a window, of every channel; what stands over the edge does not count. `taps` tells which one
 * it was (row by row through the window; the first, if several are as large, but the last NaN, which is the largest of all, as
 * in PyTorch), for the backward.
 * y: [N, H', W', C]; taps: u32 [N, H', W', C]; x: [N, H, W, C].
 */
export function maxPool(y: Tensor, taps: Tensor, x: Tensor, window: Window): void {
  const shape = windowedShape(x.shape, window);
  expectImages("maxPool", "y", y, shape, "float");
  expectImages("maxPool", "taps", taps, shape, "u32");
  maxPoolRows.run([y, taps, x, window]);
}

const maxPoolRows = rowOperation<[y: Tensor, taps: Tensor, x: Tensor, window: Window]>({
  name: "maxPool",
  outputs: 2,
  rows: 0,
  record(variant, y, taps, x, window) {
    const [samples, height, width, channels] = y.shape;
    const { kernel, perLane, grid } = largest(x.device, samples * height * width, channels, variant);
    const rows = samples * height * width;
    const parameters = { rows, width: channels / perLane, ...windowParameters(x.shape, y.shape, window) };
    x.device.dispatch(kernel, parameters, [y, taps, x], grid);
  },
});

/** The gradient of {@link maxPool} with respect to x. dx: [N, H, W, C]; dy: [N, H', W', C]; taps: u32 [N, H', W', C]. */
export function maxPoolBackward(dx: Tensor, dy: Tensor, taps: Tensor, window: Window): void {
  const shape = windowedShape(dx.shape, window);
  expectImages("maxPoolBackward", "dy", dy, shape, "float");
  expectImages("maxPoolBackward", "taps", taps, shape, "u32");
  maxPoolBackwardRows.run([dx, dy, taps, window]);
}

const maxPoolBackwardRows = rowOperation<[dx: Tensor, dy: Tensor, taps: Tensor, window: Window]>({
  name: "maxPoolBackward",
  outputs: 1,
  rows: 0,
  record(variant, dx, dy, taps, window) {
    const [samples, height, width, channels] = dx.shape;
    const { kernel, perLane, grid } = largestBackward(dx.device, samples * height * width, channels, variant);
    const rows = samples * height * width;
    const parameters = { rows, width: channels / perLane, ...windowParameters(dx.shape, dy.shape, window) };
    dx.device.dispatch(kernel, parameters, [dx, dy, taps], grid);
  },
});

/** What the kernels of {@link averagePool} do not read. */
const wholeImage = { outHeight: 0, outWidth: 0, size: 0, stride: 0, padding: 0 };

/** The mean of each channel over all pixels. y: [N, C]; x: [N, H, W, C]. */
export function averagePool(y: Tensor, x: Tensor): void {
  const [samples, height, width, channels] = x.shape;
  expectImages("averagePool", "x", x, [samples, height, width, channels], "float");
  expectShape("averagePool", "y", y, [samples, channels], "float");
  averagePoolRows.run([y, x]);
}

const averagePoolRows = rowOperation<[y: Tensor, x: Tensor]>({
  name: "averagePool",
  outputs: 1,
  rows: 1,
  ungrouped: true,
  record(variant, y, x) {
    const [samples, height, width, channels] = x.shape;
    const perLane = variant === "vec4" ? 4 : 1;
    const parameters = { ...wholeImage, rows: samples, width: channels / perLane, inHeight: height, inWidth: width };
    x.device.dispatch(average[perLane], parameters, [y, x], lanes(sizeOf(y.shape) / perLane));
  },
});

/** The gradient of {@link averagePool} with respect to x. dx: [N, H, W, C]; dy: [N, C]. */
export function averagePoolBackward(dx: Tensor, dy: Tensor): void {
  const [samples, height, width, channels] = dx.shape;
  expectImages("averagePoolBackward", "dx", dx, [samples, height, width, channels], "float");
  expectShape("averagePoolBackward", "dy", dy, [samples, channels], "float");
  averagePoolBackwardRows.run([dx, dy]);
}

const averagePoolBackwardRows = rowOperation<[dx: Tensor, dy: Tensor]>({
  name: "averagePoolBackward",
  outputs: 1,
  rows: 0,
  record(variant, dx, dy) {
    const [samples, height, width, channels] = dx.shape;
    const rows = samples * height * width;
    const { kernel, perLane, grid } = averageBackward(dx.device, rows, channels, variant);
    const parameters = { ...wholeImage, rows, width: channels / perLane, inHeight: height, inWidth: width };
    dx.device.dispatch(kernel, parameters, [dx, dy], grid);
  },
});
