/** Linear projection, y = x W. */
import { matmul } from "../ops/matmul.ts";
import { joinAdjacent } from "../tensor.ts";
import type { Layer } from "./layer.ts";
import { type Initial, parameter } from "./parameter.ts";

/** A projection from `inputs` to `outputs` features; its weight [inputs, outputs] is stored the way the forward reads it. */
export function linear(name: string, inputs: number, outputs: number, initial: Initial = { normal: 0.02 }): Layer {
  const weight = parameter(`${name}.weight`, [inputs, outputs], initial);
  return {
    parameters: [weight],
    keepsInput: true,
    keepsGradient: true,
    outputShape: ([rows]) => [rows, outputs],
    flops([rows]) {
      const each = 2 * rows * inputs * outputs;
      return { f: each, i: each, w: each };
    },
    forward(y, x, saved) {
      saved.keep("x", x);
      matmul(y, x, weight.value);
    },
    backwardInput(dx, dy, saved) {
      saved.keep("dy", dy);
      if (dx) matmul(dx, dy, weight.value, { transposeB: true });
    },
    backwardWeight(saved) {
      for (const [x, dy] of joinAdjacent(saved.map((each) => [each.get("x"), each.get("dy")] as const))) {
        matmul(weight.gradient, x, dy, { transposeA: true, accumulate: true });
      }
    },
  };
}
