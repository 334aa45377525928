/** A training that has diverged, in one line: where, what is left of it, and what may help. */
import { reasonOf, UserError } from "../errors.ts";
import { NotFiniteError } from "../runtime/transport.ts";
import { shown } from "../text.ts";
import { findWhole } from "../training/checkpoint.ts";
import type { TrainFlags } from "./training_settings.ts";

/** How far a training had come. */
export interface Reached {
  /** Updates that were made, those before a resumption included. */
  readonly made: number;
  /** Whether what failed was an evaluation after them, and not the next update. */
  readonly evaluating: boolean;
  /** At its peak. */
  readonly learningRate: number;
}

/** What to say of the error that has ended a training: itself, unless a loss or a gradient was no finite number. */
export function explained(error: unknown, flags: TrainFlags, { made, evaluating, learningRate }: Reached): unknown {
  if (!(error instanceof NotFiniteError)) return error;
  const where = evaluating ? `The evaluation after update ${made}` : `Update ${made + 1} of ${flags.steps}`;
  const found = flags.save === undefined ? undefined : findWhole(flags.save, []);
  const left = flags.save === undefined
    ? "nothing was saved (--save)"
    : found
    ? `the last checkpoint is ${shown(found.path)}`
    : "there is no checkpoint yet";
  const remedies = [
    `a --lr below ${learningRate}`,
    flags.warmUp ? `a --warm-up longer than ${flags.warmUp}` : "a --warm-up",
    flags.clip === undefined ? "--clip 1" : `a --clip below ${flags.clip}`,
    ...flags.precision === "mixed" ? ["--precision f32"] : [],
  ];
  const last = remedies.pop();
  return new UserError(
    `${where} failed, the training has diverged: ${reasonOf(error)}; ${left}. Try ${remedies.join(", ")} or ${last}`,
    { cause: error },
  );
}
