/** Layers whose backward is given whole: right first, split later. */
import { columnSum } from "../ops/bias.ts";
import { fill } from "../ops/elementwise.ts";
import { joinAdjacent, sizeOf, type Tensor } from "../tensor.ts";
import type { StateBuffer } from "./buffers.ts";
import { createGroup, type Group } from "./group.ts";
import type { Layer } from "./layer.ts";
import type { Parameter } from "./parameter.ts";
import type { Saved } from "./saved.ts";

/** A layer with one backward. */
export interface Unsplit {
  /** Trainable parameters. */
  readonly parameters: readonly Parameter[];
  /** State that the forward keeps up to date; none by default. */
  readonly buffers?: readonly StateBuffer[];
  /** Names of the side inputs that it reads, see `Saved.side`; none by default. */
  readonly sides?: readonly string[];
  /** Shape of `y` for an `x` of this shape. */
  outputShape(inputShape: readonly number[]): readonly number[];
  /** Floating-point operations for an `x` of this shape: of the forward, and of the whole backward. */
  flops(inputShape: readonly number[]): { readonly f: number; readonly b: number };
  /** Writes `y`, and keeps in `saved` what the backward needs. */
  forward(y: Tensor, x: Tensor, saved: Saved): void;
  /**
   * Writes `dx`, where there is one, from `dy`, and adds the parameters' gradients to `saved.gradient(parameter)`. What `saved`
   * keeps is released afterwards.
   */
  backward(dx: Tensor | undefined, dy: Tensor, saved: Saved): void;
}

/**
 * A layer of a backward that is given whole, as the textbook or a reference has it: it trains under every schedule, and gives the
 * numbers that a split version must give.
 *
 * ```ts
 * import { checkGradients, parameter, unsplit } from "twobp/layers";
 * import { matmul } from "twobp/ops";
 *
 * const weight = parameter("weight", [6, 5], { normal: 0.02 });
 * const projection = unsplit({
 *   parameters: [weight],
 *   outputShape: ([rows]) => [rows, 5],
 *   flops: ([rows]) => ({ f: 2 * rows * 6 * 5, b: 4 * rows * 6 * 5 }),
 *   forward(y, x, saved) {
 *     saved.keep("x", x);
 *     matmul(y, x, saved.value(weight));
 *   },
 *   backward(dx, dy, saved) {
 *     if (dx) matmul(dx, dy, saved.value(weight), { transposeB: true });
 *     matmul(saved.gradient(weight), saved.get("x"), dy, { transposeA: true, accumulate: true });
 *   },
 * });
 * console.log((await checkGradients(projection, [9, 6])).ok);
 * ```
 *
 * I runs the whole backward, and puts the gradients aside for W, which adds them up: so 2BP moves next to nothing, and its price
 * is a set of gradients, f32, for each micro-batch that waits. In a full backward nothing is put aside: B is the backward
 * itself, once. To split it, move the lines that write gradients into `backwardWeight`, and keep what they read.
 */
export function unsplit(own: Unsplit): Layer {
  const { parameters, buffers, sides = [] } = own;
  const elements = parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const nameOf = (parameter: Parameter) => `gradient ${parameters.indexOf(parameter)}`;
  /** A group by itself, whose gradients are those that wait for W; those of parts are due at once. */
  const aside = (saved: Saved): Group => {
    const { placed } = saved.group;
    return createGroup(
      {
        ...placed,
        parameter(parameter) {
          const { value, master } = placed.parameter(parameter);
          return {
            value,
            master,
            get gradient() {
              return { ...saved.get(nameOf(parameter)), shape: parameter.shape };
            },
          };
        },
      },
      1,
      { delayed: false },
    );
  };
  return {
    parameters,
    ...buffers ? { buffers } : {},
    reads: { sides },
    outputShape: (shape) => own.outputShape(shape),
    flops(shape) {
      const { f, b } = own.flops(shape);
      return { f, i: b, w: elements, b };
    },
    forward(y, x, saved) {
      const store = saved.child("whole", saved.delayed ? { group: aside(saved) } : {});
      store.run(() => own.forward(y, x, store));
    },
    backwardInput(dx, dy, saved) {
      for (const parameter of saved.delayed ? parameters : []) {
        const gradient = saved.slot(nameOf(parameter), [1, ...parameter.shape], "derivatives");
        fill(gradient, 0);
        saved.keep(nameOf(parameter), gradient);
      }
      const store = saved.child("whole");
      store.run(() => own.backward(dx, dy, store));
      saved.dropChild("whole");
    },
    backwardWeight(saved) {
      const [{ delayed, gradient }] = saved;
      if (!delayed) return; // I has been the whole backward
      for (const parameter of parameters) {
        const flat = [sizeOf(parameter.shape)];
        for (const [rows] of joinAdjacent(saved.map((each) => [each.get(nameOf(parameter))] as const))) {
          columnSum({ ...gradient(parameter), shape: flat }, { ...rows, shape: [rows.shape[0], ...flat] });
        }
      }
    },
  };
}
