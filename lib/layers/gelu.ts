/** GELU (Hendrycks and Gimpel, arXiv 1606.08415): no parameters, so no third function. */
import * as ops from "../ops/gelu.ts";
import { sizeOf } from "../tensor.ts";
import type { Layer } from "./layer.ts";

/** Applies GELU to each element; x is kept from the forward to I. */
export function gelu(form: ops.GeluForm = "erf"): Layer {
  return {
    parameters: [],
    pieces: "alone",
    reads: {},
    outputShape: (shape) => shape,
    flops: (shape) => ({ f: 20 * sizeOf(shape), i: 30 * sizeOf(shape), w: 0 }),
    forward(y, x, saved) {
      ops.gelu(y, x, form);
      saved.keep("x", x);
    },
    backwardInput(dx, dy, saved) {
      if (dx) ops.geluBackward(dx, dy, saved.get("x"), form);
      saved.drop("x");
    },
  };
}
