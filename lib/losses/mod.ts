/**
 * Losses: what stands at the end of a model and is made small. Two of them, and what one is.
 *
 * ```ts
 * import { linear } from "twobp/layers";
 * import { crossEntropy } from "twobp/losses";
 * import { defineModel } from "twobp/models";
 *
 * const model = defineModel({
 *   name: "classifier",
 *   inputs: { shape: [4] },
 *   layers: [linear("out", 4, 3, { bias: true })],
 *   loss: crossEntropy({ smoothing: 0.1 }),
 * });
 * console.log(model.loss.targets([8, 3])); // u32 [8], classes below 3
 * ```
 *
 * docs/own_model.md shows a loss of one's own.
 *
 * @module
 */
export { crossEntropy } from "./cross_entropy.ts";
export type { Loss, Targets } from "./loss.ts";
export { meanSquaredError } from "./mean_squared_error.ts";
