/** Softmax cross-entropy at the end of the last stage: no parameters, so no third function. */
import { crossEntropy, crossEntropyBackward, sum } from "../ops/loss.ts";
import type { Tensor } from "../tensor.ts";
import type { Saved } from "./saved.ts";

/**
 * Writes `loss` [1], the sum over the rows of `logits` [rows, classes] of -log softmax at `targets` (u32 [rows]).
 */
export function lossForward(loss: Tensor, logits: Tensor, targets: Tensor, saved: Saved): void {
  saved.run(() => {
    const rows = logits.shape[0];
    const losses = saved.scratch([rows]);
    const logSumExp = saved.scratch([rows], "f32", "activations");
    crossEntropy(losses, logSumExp, logits, targets);
    sum(loss, losses);
    saved.keep("logits", logits);
    saved.keep("logSumExp", logSumExp);
    saved.keep("targets", targets);
  });
}

/** Writes `dlogits`, the gradient of `scale` [1] times the loss with respect to the logits, and releases what the forward kept. */
export function lossBackward(dlogits: Tensor, scale: Tensor, saved: Saved): void {
  crossEntropyBackward(dlogits, saved.get("logits"), saved.get("logSumExp"), saved.get("targets"), scale);
  saved.drop("logits", "logSumExp", "targets");
}
