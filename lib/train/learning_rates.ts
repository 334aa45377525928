/** Learning rates over a training: pure functions of the step, of what the optimizer's own learning rates are multiplied by. */
import { UserError } from "../errors.ts";
import { expectFields, optional, positive, type Rule, type Rules, whole } from "../rules.ts";

/**
 * What the optimizer's learning rates are multiplied by in a step, 0 or more; the first step is 0. The optimizer's own are the peak.
 * Any such function will do; those here are the usual ones.
 */
export type LearningRate = (step: number) => number;

/** How a learning rate begins. */
export interface WarmUp {
  /**
   * Steps of a linear warm-up: the first has 1 / `warmUp`, and step `warmUp - 1` is the first with all of it. None by default.
   */
  readonly warmUp?: number;
}

/** How a learning rate falls. */
export interface Decay extends WarmUp {
  /** The length of the training, in steps: from this one on it stays at `least`. More than those of the warm-up. */
  readonly steps: number;
  /** What it falls to, as a share of the peak, from 0 to 1; 0 by default. */
  readonly least?: number;
}

/** How long a learning rate stays, and how it falls then. */
export interface StableDecay extends Decay {
  /** The steps in which it falls, the last ones; those before, behind the warm-up, have all of it. */
  readonly decay: number;
}

const warmUpRule = optional(whole(0));
const share: Rule = {
  right: "a number from 0 to 1",
  accepts: (value) => typeof value === "number" && value >= 0 && value <= 1,
};
const decayRules: Rules<Decay> = { steps: positive, warmUp: warmUpRule, least: optional(share) };

/**
 * The same in all steps, but for a warm-up.
 *
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export function constantRate(options: WarmUp = {}): LearningRate {
  expectFields("constantRate", options, { warmUp: warmUpRule });
  return warmedUp(options, () => 1);
}

/**
 * Falls by as much in every step.
 *
 * @throws {UserError} On an option out of its range, or an unknown one, and a warm-up as long as the training.
 */
export function linearDecay(options: Decay): LearningRate {
  return falling("linearDecay", options, (done) => 1 - done);
}

/**
 * Falls along half a cosine (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
 *
 * ```ts
 * import { cosineDecay } from "twobp/train";
 *
 * const rate = cosineDecay({ steps: 100, warmUp: 10, least: 0.1 });
 * console.log([0, 9, 10, 55, 100].map((step) => rate(step).toFixed(2)).join(" ")); // 0.10 1.00 1.00 0.55 0.10
 * ```
 *
 * @throws {UserError} On an option out of its range, or an unknown one, and a warm-up as long as the training.
 */
export function cosineDecay(options: Decay): LearningRate {
  return falling("cosineDecay", options, (done) => (1 + Math.cos(Math.PI * done)) / 2);
}

/**
 * Behind the warm-up, falls with one over the root of the step's number (Vaswani et al., arXiv 1706.03762, section 5.3, as a share of
 * its peak): for trainings of no set length.
 *
 * @param options `warmUp`, 1 or more: the longer, the slower it falls afterwards.
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export function inverseSquareRoot(options: { readonly warmUp: number }): LearningRate {
  expectFields("inverseSquareRoot", options, { warmUp: positive });
  const { warmUp } = options;
  return warmedUp(options, (step) => Math.sqrt(warmUp / (step + 1)));
}

/**
 * Warm-up, then all of it, then a linear fall in the last `decay` steps (Hu et al., arXiv 2404.06395): where to stop can be
 * decided late.
 *
 * @throws {UserError} On an option out of its range, or an unknown one, and where warm-up and fall are longer than the training.
 */
export function warmUpStableDecay(options: StableDecay): LearningRate {
  expectFields("warmUpStableDecay", options, { ...decayRules, decay: positive });
  const { steps, decay, warmUp = 0, least = 0 } = options;
  if (warmUp + decay > steps) {
    throw new UserError(
      `warmUpStableDecay: ${warmUp} steps of warm-up and ${decay} of decay do not fit into a training of ${steps}`,
    );
  }
  return warmedUp(options, (step) => 1 - (1 - least) * Math.min(1, Math.max(0, step - (steps - decay)) / decay));
}

/** Falls from 1 to `least`, the way that `shape` goes from 1 at 0 to 0 at 1. */
function falling(owner: string, options: Decay, shape: (done: number) => number): LearningRate {
  expectFields(owner, options, decayRules);
  const { steps, warmUp = 0, least = 0 } = options;
  if (warmUp >= steps) {
    throw new UserError(`${owner}: ${warmUp} steps of warm-up leave nothing of a training of ${steps}`);
  }
  return warmedUp(options, (step) => least + (1 - least) * shape(Math.min(1, (step - warmUp) / (steps - warmUp))));
}

function warmedUp({ warmUp = 0 }: WarmUp, after: LearningRate): LearningRate {
  return (step) => step < warmUp ? (step + 1) / warmUp : after(step);
}
