/** The training loop: steps, evaluations between them, and when to stop. */
import { UserError } from "../errors.ts";
import {
  anything,
  callback,
  described,
  expectFields,
  expectValue,
  flag,
  having,
  optional,
  positive,
  real,
  type Rules,
} from "../rules.ts";
import { companyOf } from "../runtime/elsewhere.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import type { StepResult } from "../runtime/step.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { checkBatch } from "../train/check_batch.ts";
import type { Batch, BatchSource, PositionedSource } from "../train/data.ts";
import type { LearningRate } from "../train/learning_rates.ts";
import type { SourcePosition } from "../train/position.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { checkEvaluation, type EvaluationOptions, heldOutLoss, type TrainEvaluation } from "./evaluation.ts";
import { nothingDone, type Resumed, savingOf, type SavingOptions, savingRules } from "./saving.ts";

/** The batches of one epoch, in their order. */
export type EpochBatches = (epoch: number) => Iterable<Batch | Promise<Batch>> | AsyncIterable<Batch>;

/** Makes a source that goes on from a position, from its start where there is none: `from` of the sources of this library. */
export interface ResumableData {
  /** The source, or a promise of it. */
  open(from: SourcePosition | undefined): PositionedSource | Promise<PositionedSource>;
}

/** How to train. */
export interface TrainOptions {
  /** How each batch goes through the pipeline. */
  readonly schedule: Schedule;
  /**
   * Where batches come from: a source without end, what opens one at the position of a checkpoint, or the batches of each epoch, which a
   * training that is resumed draws again up to where it stood.
   */
  readonly data: BatchSource | ResumableData | EpochBatches;
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
  /**
   * How many batches make one update, of the gradient of the mean over all of their targets that count, as one batch of all their samples would
   * have it; 1 by default. The last of an epoch may have fewer.
   */
  readonly accumulate?: number;
  /** What to evaluate; nothing by default. */
  readonly evaluation?: EvaluationOptions;
  /** Where to save all that it takes to go on, see {@link saveCheckpoint}; nowhere by default. It is written while the steps go on. */
  readonly save?: SavingOptions;
  /**
   * Whether to go on from the last whole checkpoint in the folder of `save`, where there is one: with the bits of a training that was never
   * interrupted. Not by default: then a folder with checkpoints is refused.
   */
  readonly resume?: boolean;
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
  /** Mean loss over all targets of its batches that count, before the update. */
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

/** What a training has come to. */
export interface TrainResult {
  /** How many updates were made or, in mixed precision, skipped; those before a resumption included. */
  readonly steps: number;
  /** Why it has ended: all steps or epochs are done, evaluations found nothing better for too long, or the signal. */
  readonly ended: "steps" | "epochs" | "patience" | "signal";
  /** Loss of the last update; none where there was none. */
  readonly loss?: number;
  /** The checkpoint that it has gone on from. */
  readonly resumed?: Checkpoint;
  /** The last evaluation. */
  readonly evaluation?: TrainEvaluation;
  /** The best evaluation. */
  readonly best?: TrainEvaluation;
}

const rules: Rules<TrainOptions> = {
  schedule: anything, // by the pipeline
  data: {
    right: "a source of batches, with next(), or open() that makes one, or a function that gives those of an epoch",
    accepts: (value) => [callback, having("next"), having("open")].some((rule) => rule.accepts(value)),
  },
  samples: optional(positive),
  steps: optional(positive),
  epochs: optional(positive),
  learningRate: optional({ ...callback, right: "a function of the step, as cosineDecay() returns" }),
  clip: optional(real({ least: "above 0" })),
  accumulate: optional(positive),
  evaluation: anything,
  save: anything,
  resume: optional(flag),
  onStep: optional(callback),
  onEvaluation: optional(callback),
  signal: optional({
    right: "an AbortSignal",
    accepts: (value) => typeof value === "object" && value !== null && "aborted" in value,
  }),
};

/**
 * Trains a pipeline: draws batches, makes updates, evaluates, saves, and stops. It is a plain loop around `pipeline.step()` and
 * `pipeline.evaluate()`: what it has learnt is in the pipeline, which may be read, saved and trained on.
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
 * @throws {UserError} On an option out of its range, or an unknown one, before anything runs, a checkpoint of another training and a folder that cannot
 * be written included; what `step()` and `evaluate()` refuse; and when a checkpoint could not be written: the pipeline is then as after the last update.
 * @throws {Error} When a step or an evaluation fails. The pipeline is as it was after the last update: of one that has failed in the midst
 * of its batches nothing is left.
 */
export async function train(pipeline: Pipeline, options: TrainOptions): Promise<TrainResult> {
  check(pipeline, options);
  const { schedule, steps = Infinity, learningRate = () => 1, clip, evaluation, signal } = options;
  const company = companyOf(pipeline);
  const saving = options.save && savingOf(pipeline, options.save, options);
  const start = saving?.start, data = await opened(options, start);
  if (saving) expectPosition(data);
  start?.load();
  let { done, epoch, inEpoch, loss, bad, last, best } = start?.progress ?? nothingDone;
  let position = start?.checkpoint.position;
  const result = (ended: TrainResult["ended"]): TrainResult => ({
    steps: done,
    ended,
    ...(loss === undefined ? {} : { loss }),
    ...(start ? { resumed: start.checkpoint } : {}),
    ...(last ? { evaluation: last } : {}),
    ...(best ? { best } : {}),
  });
  if (start && done >= steps) return result("steps");
  if (start && evaluation && bad >= (evaluation.patience ?? Infinity)) return result("patience");
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
  let saved = done;
  const save = async () => {
    if (!saving || saved === done) return;
    await saving.save({ done, epoch, inEpoch, loss, bad, last, best }, position);
    saved = done;
  };
  const isStopped = async () => signal !== undefined && await company.anyOf(signal.aborted);
  const early = await isStopped();
  let ended: TrainResult["ended"] = early ? "signal" : "epochs";
  try {
    for await (const drawn of early ? [] : updatesOf(data, options, { epoch, inEpoch })) {
      if (await isStopped()) {
        ended = "signal";
        break;
      }
      const { batches } = drawn;
      const rate = learningRate(done);
      expectValue(`train: the learning rate's factor of step ${done}`, rate, real({ least: 0 }));
      const { results, mean } = await update(pipeline, schedule, batches, {
        rate,
        ...(clip === undefined ? {} : { clip }),
      });
      const { learningRate: used, gradientNorm, skipped = false } = results[results.length - 1];
      loss = mean;
      const step = done++;
      ({ epoch, inEpoch, position } = drawn);
      await options.onStep?.({
        ...{ step, epoch, loss, skipped, results },
        ...(used === undefined ? {} : { learningRate: used }),
        ...(gradientNorm === undefined ? {} : { gradientNorm }),
      });
      saving?.expectWell();
      if (evaluation && done % evaluation.every === 0 && await evaluate(evaluation)) {
        ended = "patience";
        break;
      }
      if (done >= steps) {
        ended = "steps";
        break;
      }
      if (await isStopped()) { // before a batch is drawn that nobody would train on
        ended = "signal";
        break;
      }
      if (saving && done % saving.every === 0) await save();
    }
    if (evaluation && done > 0 && last?.step !== done && !await isStopped()) await evaluate(evaluation);
    await save();
    await saving?.written();
  } finally {
    await saving?.settled();
  }
  return result(ended);
}

/**
 * One update, of the gradient of the mean over all targets of the batches; it ends with the first batch whose gradients overflow. A batch
 * with more targets weighs more, as it would if all were one.
 */
async function update(
  pipeline: Pipeline,
  schedule: Schedule,
  batches: readonly Batch[],
  options: { readonly rate: number; readonly clip?: number },
): Promise<{ results: StepResult[]; mean: number }> {
  const results: StepResult[] = [], isSum = batches.length > 1;
  const { microbatches } = sizesOf(schedule);
  const targets = batches.map((batch) =>
    isSum ? checkBatch(pipeline.model, batch, microbatches, pipeline.replicas) : 1
  );
  const all = sumOf(targets);
  try {
    for (const [index, batch] of batches.entries()) {
      const isLast = index === batches.length - 1;
      const end = isLast ? options : { optimize: false };
      const share = targets[index] / all;
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
  const seen = sumOf(targets.slice(0, results.length));
  return { results, mean: sumOf(results.map(({ loss }, index) => loss * targets[index])) / seen };
}

const sumOf = (numbers: readonly number[]) => numbers.reduce((sum, each) => sum + each, 0);

/** The batches of an update, and where the data stand behind them. */
interface Drawn {
  readonly epoch: number;
  /** How many updates the epoch has had with this one. */
  readonly inEpoch: number;
  readonly batches: readonly Batch[];
  readonly position?: SourcePosition;
}

/** The batches of each update, of those of epochs behind what a training had drawn that is resumed. */
async function* updatesOf(
  data: BatchSource | EpochBatches,
  { samples, epochs = Infinity, accumulate = 1 }: TrainOptions,
  from: Pick<Drawn, "epoch" | "inEpoch">,
): AsyncGenerator<Drawn> {
  if (typeof data !== "function") {
    while (true) {
      const batches: Batch[] = [];
      while (batches.length < accumulate) batches.push(await data.next(samples!));
      const position = data.position?.();
      yield { epoch: 0, inEpoch: 0, batches, ...(position ? { position } : {}) };
    }
  }
  for (let epoch = from.epoch; epoch < epochs; epoch++) {
    let batches: Batch[] = [], isEmpty = true, inEpoch = 0;
    const behind = epoch === from.epoch ? from.inEpoch : 0;
    const drawn = data(epoch);
    expectValue(`train: what data(${epoch}) gives`, drawn, {
      right: "a list of batches, or another iterable",
      accepts: (value) =>
        typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value),
    });
    for await (const batch of drawn) {
      isEmpty = false;
      if (batches.push(batch) < accumulate) continue;
      if (++inEpoch > behind) yield { epoch, inEpoch, batches };
      batches = [];
    }
    if (isEmpty) throw new UserError(`train: epoch ${epoch} has no batches`);
    if (batches.length > 0 && ++inEpoch > behind) yield { epoch, inEpoch, batches };
    if (inEpoch < behind) {
      throw new UserError(
        `train: epoch ${epoch} has batches for ${inEpoch} updates, and the checkpoint was behind ${behind} of it: other data`,
      );
    }
  }
}

/** The data, at the position of a checkpoint where one is resumed. */
async function opened({ data }: TrainOptions, start: Resumed | undefined): Promise<BatchSource | EpochBatches> {
  if (typeof data === "function") return data;
  const position = start?.checkpoint.position;
  const isThere = (source: BatchSource) => !start || JSON.stringify(source.position?.()) === JSON.stringify(position);
  if (!("open" in data)) {
    if (isThere(data)) return data;
    throw new UserError(
      "train: the source does not stand where the checkpoint's stood: give data as { open: (from) => a source with `from` }, " +
        "or the source from lastCheckpoint(folder).position",
    );
  }
  const source = await data.open(position);
  expectValue("train: what data.open() gives", source, {
    ...having("next", "position"),
    right: "a source with next() and position()",
  });
  if (!isThere(source)) {
    throw new UserError(
      "train: what data.open() gives does not stand where the checkpoint's stood: hand what it is given on as `from`",
    );
  }
  return source;
}

/** Refuses data that nobody could go on with. */
function expectPosition(data: BatchSource | EpochBatches): void {
  if (typeof data === "function") return;
  if (!data.position) {
    throw new UserError("train: to be saved, a source must know where it stands: it has no position()");
  }
  data.position(); // one that is drawn ahead of may not know
}

function check(pipeline: Pipeline, options: TrainOptions): void {
  expectValue("train: the pipeline", pipeline, {
    ...having("step", "evaluate"),
    right: "a Pipeline, as createPipeline() returns",
  });
  expectFields("train", options, rules);
  const { schedule, data, samples, steps, epochs, evaluation, save, resume } = options;
  if (save !== undefined) expectFields("train: save", save, savingRules);
  if (resume && save === undefined) {
    throw new UserError("train: `resume` goes on from a checkpoint in the folder of `save`, and there is no `save`");
  }
  if (evaluation !== undefined) checkEvaluation(pipeline, schedule, evaluation);
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
