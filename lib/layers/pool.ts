/** Pooling of images [samples, height, width, channels]: no parameters, so no third function. */
import { averagePool, averagePoolBackward, maxPool, maxPoolBackward } from "../ops/pool.ts";
import { type Window, windowedShape } from "../ops/windows.ts";
import { empty, release, sizeOf } from "../tensor.ts";
import type { Layer } from "./layer.ts";

/** The largest value in each position of a window. Which one it was is kept from the forward to I. */
export function maxPoolLayer(window: Window): Layer {
  return {
    parameters: [],
    keepsInput: false,
    keepsGradient: false,
    outputShape: (shape) => windowedShape(shape, window),
    flops(shape) {
      const each = sizeOf(windowedShape(shape, window)) * window.size ** 2;
      return { f: each, i: each, w: 0 };
    },
    forward(y, x, saved) {
      const taps = empty(x.device, y.shape, "activations", "u32");
      maxPool(y, taps, x, window);
      saved.keep("taps", taps);
      release(taps);
    },
    backwardInput(dx, dy, saved) {
      if (dx) maxPoolBackward(dx, dy, saved.get("taps"), window);
      saved.drop("taps");
    },
  };
}

/** The mean of each channel over all pixels, [samples, channels]. Keeps nothing. */
export function averagePoolLayer(): Layer {
  return {
    parameters: [],
    keepsInput: false,
    keepsGradient: false,
    outputShape: ([samples, , , channels]) => [samples, channels],
    flops: (shape) => ({ f: sizeOf(shape), i: sizeOf(shape), w: 0 }),
    forward: averagePool,
    backwardInput(dx, dy) {
      if (dx) averagePoolBackward(dx, dy);
    },
  };
}
