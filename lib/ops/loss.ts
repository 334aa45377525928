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

/** A target that counts neither for the loss nor for its gradient, unless a loss is told another. */
export const ignored = 0xffff_ffff;

/** What {@link crossEntropy} and its gradient may be told. */
export interface CrossEntropyOptions {
  /**
   * The share of a target that is spread evenly over all classes (Szegedy et al., arXiv 1512.00567, section 7), 0 or more and
   * below 1; 0 by default.
   */
  readonly smoothing?: number;
  /** The target that does not count, a u32; {@link ignored} by default. */
  readonly ignored?: number;
}

/**
 * `losses = logSumExp(logits) - logits[target]` for each row; with smoothing s, 1 - s of that and s of the mean of `logSumExp(logits) -
 * logits`. losses: [R]; logSumExp: [R], kept for the backward; logits: [R, V]; targets: u32 [R], each below V, or the one to be
 * ignored: then the loss is 0, whatever the logits.
 */
export function crossEntropy(
  losses: Tensor,
  logSumExp: Tensor,
  logits: Tensor,
  targets: Tensor,
  options: CrossEntropyOptions = {},
): void {
  const rows = rowsOf(logits);
  expectShape("crossEntropy", "losses", losses, [rows]);
  expectShape("crossEntropy", "logSumExp", logSumExp, [rows]);
  expectShape("crossEntropy", "targets", targets, [rows], "u32");
  crossEntropyRows.run([losses, logSumExp, logits, targets, options]);
}

/** The options as the kernels read them. */
function parametersOf(options: CrossEntropyOptions, classes: number) {
  const { smoothing = 0 } = options;
  return { ignored: options.ignored ?? ignored, kept: 1 - smoothing, share: smoothing / classes };
}

const crossEntropyRows = rowOperation<
  [losses: Tensor, logSumExp: Tensor, logits: Tensor, targets: Tensor, options: CrossEntropyOptions]
>({
  name: "crossEntropy",
  outputs: 2,
  rows: 2,
  record(variant, losses, logSumExp, logits, targets, options) {
    const rows = rowsOf(logits), width = widthOf(logits);
    const parameters = { rows, width: variant === "vec4" ? width / 4 : width, ...parametersOf(options, width) };
    const views = [losses, logSumExp, logits, targets];
    logits.device.dispatch(forward[variant], parameters, views, lanes(rows, variant === "group" ? 1 : 64));
  },
});

/**
 * The gradient of {@link crossEntropy} with respect to the logits, of all losses times `scale` (one over the number of
 * rows of a whole batch, for a mean): `dlogits = scale * (softmax(logits) - onehot(target))`, 0 where the target is ignored;
 * with smoothing s, `(1 - s) * onehot(target) + s / V` in place of `onehot(target)`. The options are those of the forward.
 * dlogits, logits: [R, V]; logSumExp: [R]; targets: u32 [R]; scale: [1], in memory because it changes with the number of
 * targets of a batch: as a number in the uniform block it would ask for new buffers and bind groups in every step.
 */
export function crossEntropyBackward(
  dlogits: Tensor,
  logits: Tensor,
  logSumExp: Tensor,
  targets: Tensor,
  scale: Tensor,
  options: CrossEntropyOptions = {},
): void {
  const rows = rowsOf(logits);
  expectShape("crossEntropyBackward", "dlogits", dlogits, logits.shape, "float");
  expectShape("crossEntropyBackward", "logSumExp", logSumExp, [rows]);
  expectShape("crossEntropyBackward", "targets", targets, [rows], "u32");
  expectShape("crossEntropyBackward", "scale", scale, [1]);
  crossEntropyBackwardRows.run([dlogits, logits, logSumExp, targets, scale, options]);
}

const crossEntropyBackwardRows = rowOperation<
  [
    ...[dlogits: Tensor, logits: Tensor, logSumExp: Tensor, targets: Tensor],
    ...[scale: Tensor, options: CrossEntropyOptions],
  ]
>({
  name: "crossEntropyBackward",
  outputs: 1,
  rows: 0,
  record(variant, dlogits, logits, logSumExp, targets, scale, options) {
    const rows = rowsOf(logits), width = widthOf(logits);
    const { kernel, perLane, grid } = backward(logits.device, rows, width, variant);
    logits.device.dispatch(
      kernel,
      { rows, width: width / perLane, ...parametersOf(options, width) },
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
