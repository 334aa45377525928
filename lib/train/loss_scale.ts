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
  /** Good steps, one after another, since it last changed. */
  readonly good: number;
  /** Takes note of how a step with this scale went. */
  update(overflowed: boolean): void;
  /**
   * Goes on with another scale, and so many good steps behind it.
   *
   * @throws {UserError} Unless the scale is a power of two, 1 to 2^60, and the steps are fewer than it is doubled after.
   */
  restore(state: LossScaleState): void;
}

/** Where a scale stands, as plain JSON. */
export type LossScaleState = Pick<LossScale, "value" | "good">;

/**
 * A scale that starts at `initial`.
 *
 * @throws {UserError} Unless that is a power of two, 1 to 2^60: other factors would round every gradient, and the optimizer
 * takes the reciprocal in f32.
 */
export function createLossScale(initial: number = initialLossScale): LossScale {
  expectScale(initial);
  let value = initial;
  let good = 0;
  return {
    get value() {
      return value;
    },
    get good() {
      return good;
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
    restore(state) {
      expectScale(state.value);
      if (!Number.isInteger(state.good) || state.good < 0 || state.good >= growthInterval) {
        throw new UserError(
          `A loss scale is doubled after ${growthInterval} good steps: ${state.good} cannot be behind it`,
        );
      }
      ({ value, good } = state);
    },
  };
}

function expectScale(value: number): void {
  if (Number.isInteger(Math.log2(value)) && value >= least && value <= 2 ** 60) return;
  throw new UserError(`A loss scale is a power of two, 1 to 2^60, not ${value}`);
}
