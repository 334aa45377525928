/** Evaluations between the steps of a training. */
import { UserError } from "../errors.ts";
import { anything, expectFields, filled, optional, positive, real, type Rules } from "../rules.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { checkBatch } from "../train/check_batch.ts";
import type { Batch } from "../train/data.ts";

/** What is looked at between the steps. */
export interface EvaluationOptions {
  /** After so many updates, and after the last. */
  readonly every: number;
  /** Held-out batches, all of them each time. */
  readonly batches: readonly Batch[];
  /** By which schedule they go through the pipeline, its forward passes alone; that of the training by default. */
  readonly schedule?: Schedule;
  /** Stops the training when so many evaluations one after another have found no loss below the best; never by default. */
  readonly patience?: number;
  /** By how much a loss must be below the best to count as better, 0 or more; 0 by default. */
  readonly margin?: number;
}

/** What an evaluation gave. */
export interface TrainEvaluation {
  /** After how many updates. */
  readonly step: number;
  /** Mean loss over all targets of all batches that count. */
  readonly loss: number;
  /** Whether it is the best so far. */
  readonly isBest: boolean;
}

const rules: Rules<EvaluationOptions> = {
  every: positive,
  batches: filled,
  schedule: anything,
  patience: optional(positive),
  margin: optional(real({ least: 0 })),
};

/**
 * Compares what is held out with the model and the training's schedule: what does not fit is found now, and not when the first steps have
 * been made.
 *
 * @throws {UserError} Names the first batch that does not fit, or both schedules.
 */
export function checkEvaluation(pipeline: Pipeline, training: Schedule, options: EvaluationOptions): void {
  expectFields("train: evaluation", options, rules);
  const { batches, schedule = training } = options;
  sizesOf(training);
  const { microbatches } = sizesOf(schedule);
  const [own, theirs] = [schedule, training].map(({ placement }) => placement.join());
  if (own !== theirs) {
    throw new UserError(
      `train: evaluation: ${schedule.name} has its stages on ranks ${own}, the training's ${training.name} on ${theirs}: ` +
        "make it for as many devices and stages",
    );
  }
  for (const [index, batch] of batches.entries()) {
    try {
      checkBatch(pipeline.model, batch, microbatches, pipeline.replicas);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      throw new UserError(`train: evaluation: batches[${index}]: ${error.message}`, { cause: error });
    }
  }
}

/** Mean loss over all targets that count. */
export async function heldOutLoss(pipeline: Pipeline, schedule: Schedule, batches: readonly Batch[]): Promise<number> {
  let sum = 0, count = 0;
  for (const batch of batches) {
    const { loss, targets } = await pipeline.evaluate(schedule, batch);
    sum += loss * targets;
    count += targets;
  }
  return sum / count;
}
