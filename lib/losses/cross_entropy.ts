/** Softmax cross-entropy, for models whose outputs are logits. */
import { UserError } from "../errors.ts";
import * as ops from "../ops/loss.ts";
import { expectFields, optional, real, u32 } from "../rules.ts";
import type { Loss } from "./loss.ts";

/**
 * Cross-entropy of logits [rows, classes] with one class a row, u32 [rows]: the mean of -log softmax at the target, over the rows whose
 * target is not `ignored`. With `smoothing` s the target is a distribution, 1 - s at the class and s spread evenly over all classes
 * (Szegedy et al., arXiv 1512.00567, section 7). Both are PyTorch's `label_smoothing` and `ignore_index`.
 *
 * @param options `smoothing`, 0 or more and below 1, by default 0; `ignored`, a u32, by default 2^32 - 1.
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export function crossEntropy(options: ops.CrossEntropyOptions = {}): Loss {
  expectFields("crossEntropy", options, {
    smoothing: optional(real({ least: 0, below: 1 })),
    ignored: optional(u32),
  });
  const { smoothing = 0, ignored = ops.ignored } = options;
  const own = { smoothing, ignored };
  return {
    name: "cross-entropy",
    targets(shape) {
      if (shape.length !== 2) {
        throw new UserError(`Cross-entropy compares logits [rows, classes] with classes, not outputs [${shape}]`);
      }
      return { type: "u32", shape: [shape[0]], below: shape[1], ignored };
    },
    forward(sum, logits, targets, saved) {
      const losses = saved.scratch([logits.shape[0]]);
      const logSumExp = saved.scratch([logits.shape[0]], "f32", "activations");
      ops.crossEntropy(losses, logSumExp, logits, targets, own);
      ops.sum(sum, losses);
      saved.keep("logits", logits);
      saved.keep("logSumExp", logSumExp);
      saved.keep("targets", targets);
    },
    backward(dlogits, scale, saved) {
      ops.crossEntropyBackward(
        ...[dlogits, saved.get("logits"), saved.get("logSumExp"), saved.get("targets")] as const,
        ...[scale, own] as const,
      );
    },
  };
}
