/** ReLU: no parameters, so no third function. */
import * as ops from "../ops/relu.ts";
import { sizeOf } from "../tensor.ts";
import type { Layer } from "./layer.ts";

/** Applies max(x, 0) to each element. Its result, which the layer after it often keeps anyway, is kept from the forward to I. */
export function relu(): Layer {
  return {
    parameters: [],
    pieces: "alone",
    reads: {},
    outputShape: (shape) => shape,
    flops: (shape) => ({ f: sizeOf(shape), i: sizeOf(shape), w: 0 }),
    forward(y, x, saved) {
      ops.relu(y, x);
      saved.keep("y", y);
    },
    backwardInput(dx, dy, saved) {
      if (dx) ops.reluBackward(dx, dy, saved.get("y"));
      saved.drop("y");
    },
  };
}
