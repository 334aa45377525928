/** The same numbers in another shape. */
import { UserError } from "../errors.ts";
import { scale } from "../ops/elementwise.ts";
import { callback, expectValue } from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import type { Layer } from "./layer.ts";

/**
 * The elements of x, in their order, with other axes: `to` says which for an x of a shape. Keeps nothing, and costs a copy. So an image
 * becomes a sequence, and back:
 *
 * ```ts
 * import { reshape } from "twobp/layers";
 *
 * const tokens = reshape(([samples, height, width, channels]) => [samples * height * width, channels]);
 * const pixels = reshape(([rows, channels]) => [rows / 16, 4, 4, channels]);
 * console.log(pixels.outputShape(tokens.outputShape([2, 4, 4, 32]))); // [ 2, 4, 4, 32 ]
 * ```
 *
 * Its `outputShape` throws a UserError where the elements are not as many.
 */
export function reshape(to: (shape: readonly number[]) => readonly number[]): Layer {
  expectValue("reshape: to", to, callback);
  return {
    parameters: [],
    reads: {},
    outputShape(shape) {
      const made = to(shape);
      if (sizeOf(made) === sizeOf(shape)) return made;
      throw new UserError(
        `reshape makes [${made.join(", ")}] of [${shape.join(", ")}], which has ${sizeOf(shape)} elements`,
      );
    },
    flops: (shape) => ({ f: sizeOf(shape), i: sizeOf(shape), w: 0 }),
    forward: (y, x) => scale(y, x, 1),
    backwardInput(dx, dy) {
      if (dx) scale(dx, dy, 1);
    },
  };
}
