/** Dropout with a mask that is computed, not stored. It has no parameters: p1 only. */
import type { Tensor } from "../tensor.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel, rowOperation } from "./variants.ts";

const apply = rowKernel("dropout", "apply");

/** Which mask {@link dropout} takes. */
export interface DropoutMask {
  /** Share of the elements that become 0, below 1. */
  readonly rate: number;
  /** u32 [2]: the step's seed, and the number of the micro-batch's first sample in the batch. */
  readonly seed: Tensor;
  /** A u32 of the layer's own, so that no two layers share a mask. */
  readonly salt: number;
}

/**
 * `out = x / (1 - rate)`, or `x * 0` where the mask drops an element (Srivastava et al., 2014): 0, or as in PyTorch NaN
 * where x is not finite. The mask is a hash of seed, salt, row
 * and column, the row counted from the batch's first sample: batches cut in other ways drop the same elements. Its gradient
 * is the same function of the output's. out, x: [R, D], with R / samples = `rowsPerSample`.
 */
export function dropout(out: Tensor, x: Tensor, mask: DropoutMask, rowsPerSample: number): void {
  expectShape("dropout", "out", out, x.shape, "float");
  expectShape("dropout", "seed", mask.seed, [2], "u32");
  dropoutRows.run([out, x, mask, rowsPerSample]);
}

const dropoutRows = rowOperation<[out: Tensor, x: Tensor, mask: DropoutMask, rowsPerSample: number]>({
  name: "dropout",
  outputs: 1,
  rows: 1,
  record(variant, out, x, { rate, seed, salt }, rowsPerSample) {
    const rows = rowsOf(x), width = widthOf(x);
    const { kernel, perLane, grid } = apply(x.device, rows, width, variant);
    const parameters = { rows, width: width / perLane, ...dropParameters({ rate, salt }), rowsPerSample };
    x.device.dispatch(kernel, parameters, [out, x, seed], grid);
  },
});

/** The mask's part of a kernel's parameters: hashes below the threshold drop, what is kept is multiplied by `keep`. */
export function dropParameters({ rate, salt }: Pick<DropoutMask, "rate" | "salt">) {
  return { threshold: Math.min(Math.round(rate * 2 ** 32), 2 ** 32 - 1), keep: 1 / (1 - rate), salt };
}
