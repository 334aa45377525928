/** Cross-entropy over rows of logits, and the sum that makes one number of the rows' losses. p1 only. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowKernel, rowOperation, singleOperation } from "./variants.ts";

const forward = {
  plain: kernel("loss", "forward"),
  vec4: kernel("loss_vec4", "forward"),
  group: kernel("loss_group", "forward"),
};
const backward = rowKernel("loss_backward", "backward");
const sumKernel = kernel("sum", "sum");

/**
 * `losses = logSumExp(logits) - logits[target]` for each row. losses: [R]; logSumExp: [R], kept for the backward;
 * logits: [R, V]; targets: u32 [R], each below V, or 2^32 - 1 to be ignored: then the loss is 0, whatever the logits.
 */
export function crossEntropy(losses: Tensor, logSumExp: Tensor, logits: Tensor, targets: Tensor): void {
  const rows = rowsOf(logits);
  expectShape("crossEntropy", "losses", losses, [rows]);
  expectShape("crossEntropy", "logSumExp", logSumExp, [rows]);
  expectShape("crossEntropy", "targets", targets, [rows], "u32");
  crossEntropyRows.run([losses, logSumExp, logits, targets]);
}

const crossEntropyRows = rowOperation<[losses: Tensor, logSumExp: Tensor, logits: Tensor, targets: Tensor]>({
  name: "crossEntropy",
  outputs: 2,
  rows: 2,
  record(variant, losses, logSumExp, logits, targets) {
    const rows = rowsOf(logits), width = widthOf(logits);
    const parameters = { rows, width: variant === "vec4" ? width / 4 : width };
    const views = [losses, logSumExp, logits, targets];
    logits.device.dispatch(forward[variant], parameters, views, lanes(rows, variant === "group" ? 1 : 64));
  },
});

/**
 * The gradient of {@link crossEntropy} with respect to the logits, of all losses times `scale` (one over the number of
 * rows of a whole batch, for a mean): `dlogits = scale * (softmax(logits) - onehot(target))`, 0 where the target is ignored.
 * dlogits, logits: [R, V]; logSumExp: [R]; targets: u32 [R]; scale: [1], in memory because it changes with the number of
 * targets of a batch: as a number in the uniform block it would ask for new buffers and bind groups in every step.
 */
export function crossEntropyBackward(
  dlogits: Tensor,
  logits: Tensor,
  logSumExp: Tensor,
  targets: Tensor,
  scale: Tensor,
): void {
  const rows = rowsOf(logits);
  expectShape("crossEntropyBackward", "dlogits", dlogits, logits.shape, "float");
  expectShape("crossEntropyBackward", "logSumExp", logSumExp, [rows]);
  expectShape("crossEntropyBackward", "targets", targets, [rows], "u32");
  expectShape("crossEntropyBackward", "scale", scale, [1]);
  crossEntropyBackwardRows.run([dlogits, logits, logSumExp, targets, scale]);
}

const crossEntropyBackwardRows = rowOperation<
  [dlogits: Tensor, logits: Tensor, logSumExp: Tensor, targets: Tensor, scale: Tensor]
>({
  name: "crossEntropyBackward",
  outputs: 1,
  rows: 0,
  record(variant, dlogits, logits, logSumExp, targets, scale) {
    const rows = rowsOf(logits), width = widthOf(logits);
    const { kernel, perLane, grid } = backward(logits.device, rows, width, variant);
    logits.device.dispatch(
      kernel,
      { rows, width: width / perLane },
      [dlogits, logits, logSumExp, targets, scale],
      grid,
    );
  },
});

/** How {@link sum} puts its result away. */
export interface SumOptions {
  /** Add to `out` instead of replacing it. */
  accumulate?: boolean;
}

/** `out (+)= sum of x`, the same bits in every run. out: [1]; x: any shape, up to some thousand elements. */
export function sum(out: Tensor, x: Tensor, options: SumOptions = {}): void {
  expectShape("sum", "out", out, [1]);
  sumOperation.run([out, x, options]);
}

const sumOperation = singleOperation<[out: Tensor, x: Tensor, options: SumOptions]>({
  name: "sum",
  kernel: "sum:sum",
  outputs: 1,
  record: (out, x, { accumulate = false }) =>
    out.device.dispatch(sumKernel, { count: sizeOf(x.shape), accumulate: Number(accumulate) }, [out, x], [1]),
});
