/** The optimizer and the learning rates that the flags of `deno task train` ask for. */
import { UserError } from "../errors.ts";
import { type Model, parametersOf } from "../models/model.ts";
import {
  constantRate,
  cosineDecay,
  inverseSquareRoot,
  type LearningRate,
  linearDecay,
  warmUpStableDecay,
} from "../train/learning_rates.ts";
import { muon } from "../train/muon.ts";
import { adamw, lion, type OptimizerSpec, sgd } from "../train/optimizers.ts";

/** What `--optimizer` takes, each with its usual learning rate. */
export const usualRates = { adamw: 1e-3, sgd: 0.1, lion: 1e-4, muon: 1e-3 } as const;

/** What `--lr-schedule` takes. */
export const rateNames = ["constant", "linear", "cosine", "inverse-square-root", "warm-up-stable-decay"] as const;

/** The flags that say how parameters move. */
export interface OptimizerFlags {
  readonly optimizer: keyof typeof usualRates;
  readonly lr?: number;
  readonly weightDecay?: number;
  readonly momentum?: number;
  readonly lrSchedule: (typeof rateNames)[number];
  readonly warmUp?: number;
  readonly lrDecay?: number;
  readonly lrEnd?: number;
  readonly steps: number;
}

/**
 * The optimizer. Muon leaves to AdamW what is no matrix by nature: embeddings and output heads.
 *
 * @throws {UserError} For a flag that this one has no use for.
 */
export function optimizerOf(model: Model, flags: OptimizerFlags): OptimizerSpec {
  const { optimizer, weightDecay, momentum, lr: learningRate = usualRates[optimizer] } = flags;
  if (optimizer === "sgd" && weightDecay !== undefined) {
    throw new UserError("--weight-decay is for adamw, lion and muon; sgd decays no weights");
  }
  if (momentum !== undefined && optimizer !== "sgd" && optimizer !== "muon") {
    throw new UserError(`--momentum is for sgd and muon; ${optimizer} has moments of its own`);
  }
  const decay = weightDecay === undefined ? {} : { weightDecay }, past = momentum === undefined ? {} : { momentum };
  if (optimizer === "adamw") return adamw({ learningRate, ...decay });
  if (optimizer === "lion") return lion({ learningRate, ...decay });
  if (optimizer === "sgd") return sgd({ learningRate, ...past });
  const match = /embedding|^head|^fc\./;
  const isFound = parametersOf(model).some(({ name }) => match.test(name));
  return muon({ learningRate, ...decay, ...past, others: { learningRate, ...decay, ...isFound ? { match } : {} } });
}

/**
 * What learning rates are multiplied by, step by step.
 *
 * @throws {UserError} For lengths that do not fit into the training, and a flag that this form has no use for.
 */
export function rateOf(flags: OptimizerFlags): LearningRate {
  const { lrSchedule: form, steps, warmUp = 0, lrDecay: decay = Math.ceil(steps / 5), lrEnd: least = 0 } = flags;
  const isStable = form === "warm-up-stable-decay", isRoot = form === "inverse-square-root";
  if (flags.lrDecay !== undefined && !isStable) {
    throw new UserError(`--lr-decay is for --lr-schedule warm-up-stable-decay, not ${form}`);
  }
  if (flags.lrEnd !== undefined && (isRoot || form === "constant")) {
    throw new UserError(`--lr-end is for a learning rate that falls to an end, and ${form} does not`);
  }
  if (isRoot && warmUp === 0) throw new UserError("--lr-schedule inverse-square-root needs --warm-up, 1 or more");
  // One that falls needs at least one update to fall in.
  const length = warmUp + (isStable ? decay : form === "constant" || isRoot ? 0 : 1);
  if (length > steps) {
    throw new UserError(
      `--warm-up ${warmUp}${isStable ? ` and --lr-decay ${decay} do` : " does"} not fit into --steps ${steps}` +
        (isStable || length === warmUp ? "" : `: ${form} needs at least one update to fall in`),
    );
  }
  if (form === "constant") return constantRate({ warmUp });
  if (isRoot) return inverseSquareRoot({ warmUp });
  if (isStable) return warmUpStableDecay({ steps, warmUp, decay, least });
  return (form === "linear" ? linearDecay : cosineDecay)({ steps, warmUp, least });
}
