import { ignored } from "../../lib/ops/loss.ts";

/**
 * Cross-entropy of each row of `width` logits in float64, with label smoothing as the distribution that it stands for: 1 - s at the
 * target, and s spread evenly over all classes. Both results are 0 where the target is `none`.
 */
export function crossEntropy(
  logits: ArrayLike<number>,
  targets: ArrayLike<number>,
  width: number,
  { smoothing = 0, none = ignored } = {},
) {
  const losses = new Float64Array(targets.length);
  const logSumExp = new Float64Array(targets.length);
  for (let r = 0; r < targets.length; r++) {
    if (targets[r] === none) continue;
    const row = Array.from({ length: width }, (_, c) => logits[r * width + c]);
    const highest = Math.max(...row);
    logSumExp[r] = highest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - highest), 0));
    row.forEach((value, c) => {
      const wanted = (c === targets[r] ? 1 - smoothing : 0) + smoothing / width;
      if (wanted > 0) losses[r] += wanted * (logSumExp[r] - value);
    });
  }
  return { losses, logSumExp };
}

/** The gradient of `scale` times the sum of all losses with respect to the logits. */
export function crossEntropyBackward(
  logits: ArrayLike<number>,
  targets: ArrayLike<number>,
  width: number,
  scale: number,
  { smoothing = 0, none = ignored } = {},
): Float64Array {
  const { logSumExp } = crossEntropy(logits, targets, width, { none });
  return Float64Array.from(logits, (value, i) => {
    const r = Math.floor(i / width);
    if (targets[r] === none) return 0;
    const wanted = (targets[r] === i % width ? 1 - smoothing : 0) + smoothing / width;
    return scale * (Math.exp(value - logSumExp[r]) - wanted);
  });
}

/** The sum of squared errors of each row of `width` numbers in float64. */
export function squaredError(y: ArrayLike<number>, targets: ArrayLike<number>, width: number): Float64Array {
  const losses = new Float64Array(y.length / width);
  for (let i = 0; i < y.length; i++) losses[Math.floor(i / width)] += (y[i] - targets[i]) ** 2;
  return losses;
}

/** The gradient of `scale` times the sum of all squared errors with respect to y. */
export function squaredErrorBackward(y: ArrayLike<number>, targets: ArrayLike<number>, scale: number): Float64Array {
  return Float64Array.from(y, (value, i) => 2 * scale * (value - targets[i]));
}
