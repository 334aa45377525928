/** Linear projection, y = x W, or y = x W + b. */
import { UserError } from "../errors.ts";
import { addBias, columnSum } from "../ops/bias.ts";
import { matmul } from "../ops/matmul.ts";
import { joinAdjacent } from "../tensor.ts";
import { expectInput, type Layer, type ProjectionPart } from "./layer.ts";
import { butFrozen, type Initial, isTrained, parameter, type Trainable } from "./parameter.ts";

/** What a projection has besides its sizes. */
export interface LinearOptions {
  /** What the weight starts with; normal numbers of deviation 0.02 by default. */
  readonly initial?: Initial;
  /** Whether there is a bias, or what it starts with; `true` is zeros. None by default. */
  readonly bias?: boolean | Initial;
  /** Whether the weight is stored [outputs, inputs], like the table of an embedding that it is tied to. */
  readonly transposed?: boolean;
  /** The projections that it is, side by side, where it is several; their outputs add up to its own. One of its own name by default. */
  readonly parts?: readonly ProjectionPart[];
  /** Which of the two are trained; both by default. */
  readonly trainable?: Trainable;
}

/**
 * A projection from `inputs` to `outputs` features; its weight [inputs, outputs] is stored the way the forward reads it, its
 * bias is [outputs].
 *
 * @throws {UserError} When it has parts whose outputs do not add up to its own.
 */
export function linear(
  name: string,
  inputs: number,
  outputs: number,
  options: LinearOptions = {},
): Layer {
  const { initial = { normal: 0.02 }, bias: biased = false, transposed = false, trainable = true } = options;
  const weight = parameter(`${name}.weight`, transposed ? [outputs, inputs] : [inputs, outputs], initial, trainable);
  const bias = biased && parameter(`${name}.bias`, [outputs], biased === true ? "zeros" : biased, trainable);
  const trainsWeight = isTrained(weight), trainsBias = bias && isTrained(bias);
  const { parts = [{ name, outputs }] } = options, together = parts.reduce((sum, part) => sum + part.outputs, 0);
  if (options.parts && together !== outputs) {
    const names = parts.map((part) => part.name).join(", ");
    throw new UserError(`${name}: its parts ${names} have ${together} outputs together, and it has ${outputs}`);
  }
  return {
    parameters: bias ? [weight, bias] : [weight],
    projects: { weight: weight.name, inputs, transposed, parts },
    pieces: "alone",
    reads: { input: trainsWeight, gradient: trainsWeight || trainsBias, nothingElse: true },
    outputShape(shape) {
      expectInput(name, shape, ["rows", inputs]);
      return [shape[0], outputs];
    },
    flops([rows]) {
      const each = 2 * rows * inputs * outputs, once = bias ? rows * outputs : 0;
      return { f: each + once, i: each, w: (trainsWeight ? each : 0) + (trainsBias ? once : 0), recompute: 0 };
    },
    forward(y, x, saved) {
      if (trainsWeight) saved.keep("x", x);
      if (saved.unread) return;
      matmul(y, x, saved.value(weight), { transposeB: transposed });
      if (bias) addBias(y, saved.value(bias));
    },
    backwardInput(dx, dy, saved) {
      if (trainsWeight || trainsBias) saved.keep("dy", dy);
      if (dx) matmul(dx, dy, saved.value(weight), { transposeB: !transposed });
    },
    backwardWeight(saved) {
      const [{ gradient, group: { samples }, get }] = saved;
      const sampleRows = get("dy").shape[0] / samples;
      const read = saved.map((each) => trainsWeight ? [each.get("dy"), each.get("x")] : [each.get("dy")]);
      for (const [dy, x] of joinAdjacent(read)) {
        if (trainsWeight) {
          const [a, b] = transposed ? [dy, x] : [x, dy];
          matmul(gradient(weight), a, b, { transposeA: true, accumulate: true, sampleRows });
        }
        if (bias && trainsBias) columnSum(gradient(bias), dy);
      }
    },
    freeze: (isFrozen) => linear(name, inputs, outputs, { ...options, trainable: butFrozen(trainable, isFrozen) }),
  };
}
