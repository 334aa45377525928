/** The mean squared error, for models whose outputs are numbers. */
import { sum } from "../ops/loss.ts";
import { rowsOf } from "../ops/shapes.ts";
import { squaredError, squaredErrorBackward } from "../ops/squared_error.ts";
import type { Loss } from "./loss.ts";

/**
 * The mean of (output - target)^2 over all numbers of all outputs, PyTorch's `MSELoss`; targets are f32, in the shape of the outputs
 * whatever that is.
 */
export function meanSquaredError(): Loss {
  return {
    name: "mean squared error",
    targets: (shape) => ({ type: "f32", shape }),
    forward(out, outputs, targets, saved) {
      const losses = saved.scratch([rowsOf(outputs)]);
      squaredError(losses, outputs, targets);
      sum(out, losses);
      saved.keep("outputs", outputs);
      saved.keep("targets", targets);
    },
    backward(doutputs, scale, saved) {
      squaredErrorBackward(doutputs, saved.get("outputs"), saved.get("targets"), scale);
    },
  };
}
