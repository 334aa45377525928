/** A loss of one's own, made of operations: Huber's, with a side input that shifts the targets. */
import type { Loss } from "../../lib/losses/loss.ts";
import { add, fill, scale } from "../../lib/ops/elementwise.ts";
import { matmul } from "../../lib/ops/matmul.ts";
import { relu } from "../../lib/ops/relu.ts";
import { sizeOf, type Tensor } from "../../lib/tensor.ts";

/** The mean of Huber's loss over all numbers; with `shift`, of output - target - that side input. */
export function huberLoss(delta: number, shift?: string): Loss {
  return {
    name: "Huber",
    ...shift ? { sides: [shift] } : {},
    targets: (shape) => ({ type: "f32", shape }),
    forward(sum, outputs, targets, saved) {
      const fresh = () => saved.scratch(outputs.shape);
      const minus = (a: Tensor, b: Tensor) => {
        const [out, negative] = [fresh(), fresh()];
        scale(negative, b, -1);
        add(out, a, negative);
        return out;
      };
      let error = minus(outputs, targets);
      if (shift) error = minus(error, saved.side(shift));
      // clipped = relu(error + delta) - relu(error - delta) - delta, and the loss is clipped * (error - clipped / 2).
      const bound = fresh();
      fill(bound, delta);
      const [above, below, upper, lower] = [fresh(), minus(error, bound), fresh(), fresh()];
      add(above, error, bound);
      relu(upper, above);
      relu(lower, below);
      const clipped = minus(minus(upper, lower), bound), half = fresh(), rest = fresh();
      scale(half, clipped, -0.5);
      add(rest, error, half);
      const count = sizeOf(outputs.shape);
      matmul({ ...sum, shape: [1, 1] }, { ...clipped, shape: [1, count] }, { ...rest, shape: [count, 1] });
      saved.keep("clipped", clipped);
    },
    backward(doutputs, factor, saved) {
      const clipped = saved.get("clipped"), count = sizeOf(clipped.shape);
      matmul({ ...doutputs, shape: [count, 1] }, { ...clipped, shape: [count, 1] }, { ...factor, shape: [1, 1] });
    },
  };
}
