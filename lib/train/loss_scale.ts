/**
 * Dynamic loss scaling (Micikevicius et al., "Mixed Precision Training", arXiv 1710.03740, section 3.2). Gradients of
 * activations are often smaller than the smallest f16 (6e-8) and would become 0. So the loss is multiplied by a power of
 * two, and with it every gradient; the optimizer divides by it again. Where the scaled gradients of a step overflow, the
 * step is skipped and the scale halved; after many good steps it is doubled.
 */

import { UserError } from "../errors.ts";

/** The scale that training starts with. */
export const initialLossScale = 2 ** 16;

/** Good steps, one after another, that the scale is doubled after. */
export const growthInterval = 2000;

const least = 1;

/** The scale of one training run. */
export interface LossScale {
  /** What the loss of the next step is multiplied by. */
  readonly value: number;
  /** Whether a smaller scale may help; where it is 1 and gradients overflow all the same, the training has diverged. */
  readonly canShrink: boolean;
  /** Takes note of how a step with this scale went. */
  update(overflowed: boolean): void;
}

/**
 * A scale that starts at `initial`.
 *
 * @throws {UserError} Unless that is a power of two, 1 to 2^60: other factors would round every gradient, and the optimizer
 * takes the reciprocal in f32.
 */
export function createLossScale(initial: number = initialLossScale): LossScale {
  if (!Number.isInteger(Math.log2(initial)) || initial < least || initial > 2 ** 60) {
    throw new UserError(`A loss scale is a power of two, 1 to 2^60, not ${initial}`);
  }
  let value = initial;
  let good = 0;
  return {
    get value() {
      return value;
    },
    get canShrink() {
      return value > least;
    },
    update(overflowed) {
      if (overflowed) {
        value = Math.max(least, value / 2);
        good = 0;
      } else if (++good === growthInterval) {
        value *= 2;
        good = 0;
      }
    },
  };
}
