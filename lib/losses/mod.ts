/**
 * Losses: what a model's outputs are compared with its targets by. A loss is a description, as a layer is: cross-entropy, mean
 * squared error, and whatever has the same functions.
 *
 * ```ts
 * import { crossEntropy } from "twobp/losses";
 *
 * console.log(crossEntropy({ smoothing: 0.1 }));
 * ```
 *
 * @module
 */
export { crossEntropy } from "./cross_entropy.ts";
export type { Loss, Targets } from "./loss.ts";
export { meanSquaredError } from "./mean_squared_error.ts";
