/** Pooling of images [samples, height, width, channels]: no parameters, so no third function. */
import * as ops from "../ops/pool.ts";
import { type Window, windowedShape } from "../ops/windows.ts";
import { sizeOf } from "../tensor.ts";
import type { Layer } from "./layer.ts";

/** The largest value in each position of a window. Which one it was is kept from the forward to I. */
export function maxPool(window: Window): Layer {
  return {
    parameters: [],
    reads: {},
    outputShape: (shape) => windowedShape(shape, window),
    flops(shape) {
      const each = sizeOf(windowedShape(shape, window)) * window.size ** 2;
      return { f: each, i: each, w: 0 };
    },
    forward(y, x, saved) {
      const taps = saved.scratch(y.shape, "u32", "activations");
      ops.maxPool(y, taps, x, window);
      saved.keep("taps", taps);
    },
    backwardInput(dx, dy, saved) {
      if (dx) ops.maxPoolBackward(dx, dy, saved.get("taps"), window);
      saved.drop("taps");
    },
  };
}

/** The mean of each channel over all pixels, [samples, channels]. Keeps nothing. */
export function averagePool(): Layer {
  return {
    parameters: [],
    reads: {},
    outputShape: ([samples, , , channels]) => [samples, channels],
    flops: (shape) => ({ f: sizeOf(shape), i: sizeOf(shape), w: 0 }),
    forward: ops.averagePool,
    backwardInput(dx, dy) {
      if (dx) ops.averagePoolBackward(dx, dy);
    },
  };
}
