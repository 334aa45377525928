import { ignored } from "../../lib/train/data.ts";

/** Cross-entropy of each row of `width` logits in float64; both results are 0 where the target is ignored. */
export function crossEntropy(logits: ArrayLike<number>, targets: ArrayLike<number>, width: number) {
  const losses = new Float64Array(targets.length);
  const logSumExp = new Float64Array(targets.length);
  for (let r = 0; r < targets.length; r++) {
    if (targets[r] === ignored) continue;
    const row = Array.from({ length: width }, (_, c) => logits[r * width + c]);
    const highest = Math.max(...row);
    logSumExp[r] = highest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - highest), 0));
    losses[r] = logSumExp[r] - row[targets[r]];
  }
  return { losses, logSumExp };
}

/** The gradient of `scale` times the sum of all losses with respect to the logits. */
export function crossEntropyBackward(
  logits: ArrayLike<number>,
  targets: ArrayLike<number>,
  width: number,
  scale: number,
): Float64Array {
  const { logSumExp } = crossEntropy(logits, targets, width);
  return Float64Array.from(logits, (value, i) => {
    const r = Math.floor(i / width);
    if (targets[r] === ignored) return 0;
    return scale * (Math.exp(value - logSumExp[r]) - (targets[r] === i % width ? 1 : 0));
  });
}
