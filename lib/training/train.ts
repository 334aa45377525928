/** The training loop: steps, evaluations between them, and when to stop. */
import { UserError } from "../errors.ts";
import {
  anything,
  callback,
  described,
  expectFields,
  expectValue,
  filled,
  having,
  optional,
  positive,
  real,
  type Rules,
} from "../rules.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import type { StepResult } from "../runtime/step.ts";
import type { Schedule } from "../schedules/schedule.ts";
import type { Batch, BatchSource } from "../train/data.ts";
import type { LearningRate } from "../train/learning_rates.ts";

/** The batches of one epoch, in their order. */
export type EpochBatches = (epoch: number) => Iterable<Batch | Promise<Batch>> | AsyncIterable<Batch>;

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

/** How to train. */
export interface TrainOptions {
  /** How each batch goes through the pipeline. */
  readonly schedule: Schedule;
  /** Where batches come from: a source without end, or the batches of each epoch. */
  readonly data: BatchSource | EpochBatches;
  /** Samples of a batch, for a source. */
  readonly samples?: number;
  /** How many updates to make. This, or `epochs`, or both: what is over first. */
  readonly steps?: number;
  /** How often to go through the data, where they have epochs. */
  readonly epochs?: number;
  /** What the optimizer's learning rates are multiplied by, see {@link LearningRate}; 1 in every step by default. */
  readonly learningRate?: LearningRate;
  /** The most that the norm of an update's gradients may be, see `StepOptions.clip`. Not clipped by default. */
  readonly clip?: number;
  /** How many batches make one update, of the mean of their gradients; 1 by default. The last of an epoch may have fewer. */
  readonly accumulate?: number;
  /** What to evaluate; nothing by default. */
  readonly evaluation?: EvaluationOptions;
  /** Called after each update, and waited for. */
  readonly onStep?: (step: TrainStep) => unknown;
  /** Called after each evaluation, and waited for. */
  readonly onEvaluation?: (evaluation: TrainEvaluation) => unknown;
  /**
   * Ends the training: an update that has begun is made, with all of its batches, and the next is not. Batches that are being drawn for it
   * are lost; where it aborts during an update, none are.
   */
  readonly signal?: AbortSignal;
}

/** What an update gave. */
export interface TrainStep {
  /** Its number, from 0. */
  readonly step: number;
  /** Of the data, from 0; 0 where they have no epochs. */
  readonly epoch: number;
  /** Mean loss of its batches, before the update. */
  readonly loss: number;
  /** The optimizer's learning rate, of parameters in no group; none where it was skipped. */
  readonly learningRate?: number;
  /** Norm of the gradients before they were clipped; none where it was skipped. */
  readonly gradientNorm?: number;
  /** Whether gradients overflowed, in mixed precision: then it has changed nothing but the loss scale. */
  readonly skipped: boolean;
  /** What its steps have given, one for each batch. */
  readonly results: readonly StepResult[];
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

/** What a training has come to. */
export interface TrainResult {
  /** How many updates were made or, in mixed precision, skipped. */
  readonly steps: number;
  /** Why it has ended: all steps or epochs are done, evaluations found nothing better for too long, or the signal. */
  readonly ended: "steps" | "epochs" | "patience" | "signal";
  /** Loss of the last update; none where there was none. */
  readonly loss?: number;
  /** The last evaluation. */
  readonly evaluation?: TrainEvaluation;
  /** The best evaluation. */
  readonly best?: TrainEvaluation;
}

const rules: Rules<TrainOptions> = {
  schedule: anything, // by the pipeline
  data: {
    right: "a source of batches, with next(), or a function that gives those of an epoch",
    accepts: (value) => callback.accepts(value) || having("next").accepts(value),
  },
  samples: optional(positive),
  steps: optional(positive),
  epochs: optional(positive),
  learningRate: optional({ ...callback, right: "a function of the step, as cosineDecay() returns" }),
  clip: optional(real({ least: "above 0" })),
  accumulate: optional(positive),
  evaluation: anything,
  onStep: optional(callback),
  onEvaluation: optional(callback),
  signal: optional({
    right: "an AbortSignal",
    accepts: (value) => typeof value === "object" && value !== null && "aborted" in value,
  }),
};
const evaluationRules: Rules<EvaluationOptions> = {
  every: positive,
  batches: filled,
  schedule: anything,
  patience: optional(positive),
  margin: optional(real({ least: 0 })),
};

/**
 * Trains a pipeline: draws batches, makes updates, evaluates, and stops. It is a plain loop around `pipeline.step()` and
 * `pipeline.evaluate()`, without a state of its own: what it has learnt is in the pipeline, which may be read, saved and trained on.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
 * import { cosineDecay, train } from "twobp/train";
 *
 * const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(50));
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw({ learningRate: 3e-3 }) });
 * const steps = 12;
 * const { loss, evaluation } = await train(pipeline, {
 *   schedule: twoStage(generate("1f1b-1", { devices: 2 })),
 *   data: textSource(text.subarray(0, 1800), { length: 64, seed: 1 }),
 *   samples: 4,
 *   steps,
 *   learningRate: cosineDecay({ steps, warmUp: 2 }),
 *   clip: 1,
 *   evaluation: { every: 6, batches: [textSource(text.subarray(1800), { length: 64, seed: 2 }).next(4)] },
 *   onStep: ({ step, loss, gradientNorm }) => console.log(step, loss, gradientNorm),
 * });
 * console.log(loss, evaluation?.loss);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} On an option out of its range, or an unknown one, before anything runs; and what `step()` and `evaluate()` refuse.
 * @throws {Error} When a step or an evaluation fails. The pipeline is as it was after the last update: of one that has failed in the midst
 * of its batches nothing is left.
 */
export async function train(pipeline: Pipeline, options: TrainOptions): Promise<TrainResult> {
  check(pipeline, options);
  const { schedule, steps = Infinity, learningRate = () => 1, clip, evaluation, signal } = options;
  let done = 0, loss: number | undefined, bad = 0;
  let last: TrainEvaluation | undefined, best: TrainEvaluation | undefined;
  const result = (ended: TrainResult["ended"]): TrainResult => ({
    steps: done,
    ended,
    ...(loss === undefined ? {} : { loss }),
    ...(last ? { evaluation: last } : {}),
    ...(best ? { best } : {}),
  });
  /** Evaluates, and says whether that is enough. */
  const evaluate = async ({ margin = 0, patience = Infinity, ...own }: EvaluationOptions): Promise<boolean> => {
    const found = await heldOutLoss(pipeline, own.schedule ?? schedule, own.batches);
    const isBest = !best || found < best.loss - margin;
    last = { step: done, loss: found, isBest };
    if (isBest) best = last;
    bad = isBest ? 0 : bad + 1;
    await options.onEvaluation?.(last);
    return bad >= patience;
  };
  let ended: TrainResult["ended"] = signal?.aborted ? "signal" : "epochs";
  for await (const { epoch, batches } of signal?.aborted ? [] : updatesOf(options)) {
    if (signal?.aborted) {
      ended = "signal";
      break;
    }
    const rate = learningRate(done);
    expectValue(`train: the learning rate's factor of step ${done}`, rate, real({ least: 0 }));
    const results = await update(pipeline, schedule, batches, { rate, ...(clip === undefined ? {} : { clip }) });
    const { learningRate: used, gradientNorm, skipped = false } = results[results.length - 1];
    loss = results.reduce((sum, each) => sum + each.loss, 0) / results.length;
    const step = done++;
    await options.onStep?.({
      ...{ step, epoch, loss, skipped, results },
      ...(used === undefined ? {} : { learningRate: used }),
      ...(gradientNorm === undefined ? {} : { gradientNorm }),
    });
    if (evaluation && done % evaluation.every === 0 && await evaluate(evaluation)) {
      ended = "patience";
      break;
    }
    if (done >= steps) ended = "steps";
    else if (signal?.aborted) ended = "signal"; // before a batch is drawn that nobody would train on
    else continue;
    break;
  }
  if (evaluation && done > 0 && last?.step !== done && !signal?.aborted) await evaluate(evaluation);
  return result(ended);
}

/** One update, of the mean of the batches' gradients; it ends with the first batch whose gradients overflow. */
async function update(
  pipeline: Pipeline,
  schedule: Schedule,
  batches: readonly Batch[],
  options: { readonly rate: number; readonly clip?: number },
): Promise<StepResult[]> {
  const share = 1 / batches.length, results: StepResult[] = [];
  const isSum = batches.length > 1;
  try {
    for (const [index, batch] of batches.entries()) {
      const isLast = index === batches.length - 1;
      const end = isLast ? options : { optimize: false };
      const result = await pipeline.step(schedule, batch, { ...end, share, accumulate: index > 0 });
      results.push(result);
      if (!result.skipped) continue;
      if (isSum) pipeline.clearGradients(); // what the batches before have added up
      break;
    }
  } catch (error) {
    if (isSum && results.length > 0) {
      try {
        pipeline.clearGradients();
      } catch {
        // It cannot be used any more, and the first error says why.
      }
    }
    throw error;
  }
  return results;
}

/** Mean loss over all targets that count. */
async function heldOutLoss(pipeline: Pipeline, schedule: Schedule, batches: readonly Batch[]): Promise<number> {
  let sum = 0, count = 0;
  for (const batch of batches) {
    const { loss, targets } = await pipeline.evaluate(schedule, batch);
    sum += loss * targets;
    count += targets;
  }
  return sum / count;
}

/** The batches of each update. */
async function* updatesOf(
  { data, samples, epochs = Infinity, accumulate = 1 }: TrainOptions,
): AsyncGenerator<{ epoch: number; batches: readonly Batch[] }> {
  if (typeof data !== "function") {
    while (true) {
      const batches: Batch[] = [];
      while (batches.length < accumulate) batches.push(await data.next(samples!));
      yield { epoch: 0, batches };
    }
  }
  for (let epoch = 0; epoch < epochs; epoch++) {
    let batches: Batch[] = [], isEmpty = true;
    const drawn = data(epoch);
    expectValue(`train: what data(${epoch}) gives`, drawn, {
      right: "a list of batches, or another iterable",
      accepts: (value) =>
        typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value),
    });
    for await (const batch of drawn) {
      isEmpty = false;
      if (batches.push(batch) < accumulate) continue;
      yield { epoch, batches };
      batches = [];
    }
    if (isEmpty) throw new UserError(`train: epoch ${epoch} has no batches`);
    if (batches.length > 0) yield { epoch, batches };
  }
}

function check(pipeline: Pipeline, options: TrainOptions): void {
  expectValue("train: the pipeline", pipeline, {
    ...having("step", "evaluate"),
    right: "a Pipeline, as createPipeline() returns",
  });
  expectFields("train", options, rules);
  const { data, samples, steps, epochs, evaluation } = options;
  if (evaluation !== undefined) expectFields("train: evaluation", evaluation, evaluationRules);
  if (steps === undefined && epochs === undefined) {
    throw new UserError("train: it needs `steps`, or `epochs` where the data have such, to know when to stop");
  }
  if (typeof data === "function") {
    if (samples === undefined) return;
    throw new UserError(
      "train: `samples` is what a source is to draw; the batches of an epoch are as large as they are",
    );
  }
  if (epochs !== undefined) {
    throw new UserError(
      "train: a source has no end and so no epochs: give `steps`, or data as a function of the epoch",
    );
  }
  if (samples === undefined) {
    throw new UserError(`train: a source needs \`samples\`, how many to draw for a batch, not ${described(samples)}`);
  }
}
