/** A training as a command runs it: with a live line, metrics and a report. */
import { formatBytes } from "../bytes.ts";
import { reasonOf } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { describeMachine } from "../measure/machine.ts";
import { countParameters } from "../models/model.ts";
import { stageWork } from "../planning/stage_work.ts";
import { progress, type ProgressLine } from "../report/progress.ts";
import { type EvaluationRecord, rateText, type TrainingReport, type UpdateRecord } from "../report/training.ts";
import { variantOf } from "../report/variant.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { processNumber } from "../runtime/transports/mpi/launcher.ts";
import { countDevices, transportOf } from "../runtime/world.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { shown } from "../text.ts";
import { prefetched } from "../train/prefetch.ts";
import { checkpointPath, stepsIn } from "../training/checkpoint_folder.ts";
import { train, type TrainResult } from "../training/train.ts";
import { type Metrics, openMetrics, upTo } from "./metrics_file.ts";
import { explained } from "./training_failure.ts";
import type { Training } from "./training_settings.ts";

/** One line on what is trained on what. */
export function titleOf({ model, schedule, replicas, flags, samples, unit }: Training, set: DeviceSet): string {
  const { microbatches } = sizesOf(schedule);
  const of = unit === "tokens" ? `${flags.samples} x ${model.takes.inputs[0]} tokens` : `${flags.samples} images`;
  const update = samples * flags.accumulate;
  return `${model.name} (${(countParameters(model) / 1e6).toFixed(1)} M parameters), ${variantOf(schedule)} on ` +
    `${countDevices(set)} ${set.mode} devices (${set.adapter})${
      replicas > 1 ? `, ${replicas} replicas, each of` : ";"
    } ${microbatches} micro-batches of ${of}, ` +
    `${update} samples an update; ${flags.optimizer}, ${flags.precision}`;
}

/** What a training runs on. */
export interface Place {
  readonly set: DeviceSet;
  readonly pipeline: Pipeline;
  /** Of all devices together. */
  readonly gflops: number;
  readonly signal: AbortSignal;
  say(line: string): void;
}

/** What came of it. */
export interface Trained {
  readonly report: TrainingReport;
  /** Why it ended too early; the report is of the updates that were made. */
  readonly failure?: { readonly error: unknown };
}

/**
 * Trains, shows how far it is, and writes metrics.
 *
 * @throws {UserError} As `train()`, where it has not made an update.
 */
export async function runTraining(training: Training, place: Place): Promise<Trained> {
  const { set, pipeline, gflops, signal, say } = place;
  const { flags, model, schedule, replicas, rate, data, samples, heldOut, unit } = training;
  const { steps, clip, accumulate, evalEvery, patience, save, saveEvery = 100, keep = 2 } = flags;
  const { microbatches } = sizesOf(schedule);
  const work = stageWork(model, { stages: schedule.placement.length, samples: flags.samples });
  const flops = accumulate * replicas * microbatches *
    work.reduce((sum, { f, i, w }) => sum + f + i + (typeof w === "number" ? w : w(1)), 0);
  const perUpdate = accumulate * samples * (unit === "tokens" ? model.takes.inputs[0] : 1);
  const settings = settingsOf(training, set);
  const updates: UpdateRecord[] = [], evaluations: EvaluationRecord[] = [];
  let metrics: Metrics | undefined, bar: ProgressLine | undefined;
  /** Once it is known where it begins, which is before the first update that is made. */
  const begun = (done: number): Metrics => {
    if (metrics) return metrics;
    if (flags.resume) say(done > 0 ? `Goes on after update ${done}.` : "There is no checkpoint yet: from the start.");
    const kept = upTo(done, training.earlier);
    for (const line of kept) {
      if (line.kind === "update") updates.push(line);
      if (line.kind === "evaluation") evaluations.push(line);
    }
    metrics = openMetrics(processNumber() > 0 ? undefined : flags.metrics, kept);
    metrics.write({ kind: "run", settings, machine: describeMachine() });
    return metrics;
  };
  const peakBytes = Array.from({ length: countDevices(set) }, () => 0);
  const start = performance.now();
  let before = start, held = "";
  let result: TrainResult | undefined, failure: { error: unknown } | undefined;
  try {
    result = await train(pipeline, {
      ...{ schedule, samples, steps, accumulate, learningRate: rate, signal },
      data: { open: (from) => prefetched(data.source(from), { samples }) },
      ...save === undefined ? {} : { save: { folder: save, every: saveEvery, keep }, resume: flags.resume ?? false },
      ...clip === undefined ? {} : { clip },
      ...evalEvery === undefined
        ? {}
        : { evaluation: { every: evalEvery, batches: heldOut, ...patience === undefined ? {} : { patience } } },
      onStep({ step, loss, learningRate, gradientNorm, skipped, results }) {
        const now = performance.now(), ms = now - before;
        before = now;
        for (const { peaks } of results) {
          peaks.forEach(({ total }, rank) => peakBytes[rank] = Math.max(peakBytes[rank], total));
        }
        const record: UpdateRecord = {
          ...{ kind: "update", step: step + 1, loss },
          ...learningRate === undefined ? {} : { learningRate },
          ...gradientNorm === undefined ? {} : { gradientNorm },
          ...skipped ? { skipped } : {},
          ...{ ms, perSecond: 1000 * perUpdate / ms, shareOfPeak: flops / (ms * 1e6 * gflops) },
        };
        begun(step).write(record);
        updates.push(record);
        (bar ??= progress(steps, "updates", step)).to(step + 1, noteOf(record, unit) + held);
      },
      onEvaluation({ step, loss, isBest }) {
        const record: EvaluationRecord = { kind: "evaluation", step, loss, isBest };
        begun(step).write(record);
        evaluations.push(record);
        held = `, held out ${loss.toFixed(3)}`;
        before = performance.now();
      },
    });
  } catch (error) {
    const made = updates.at(-1)?.step ?? (flags.resume ? stepsIn(save!)[0] : undefined) ?? 0;
    const isDue = evalEvery !== undefined && made > 0 && (made % evalEvery === 0 || made === steps);
    const evaluating = isDue && evaluations.at(-1)?.step !== made;
    const said = explained(error, flags, { made, evaluating, learningRate: training.optimizer.learningRate });
    if (!metrics) throw said;
    failure = { error: said };
  } finally {
    bar?.done();
  }
  const seconds = (performance.now() - start) / 1e3;
  const made = result?.steps ?? updates[updates.length - 1].step;
  const said = failure ? { ended: "failure", reason: reasonOf(failure.error) } : { ended: result!.ended };
  begun(made).write({ kind: "end", ...said, steps: made, seconds });
  const ended = result
    ? endedText(result, seconds, save)
    : `${made} updates in ${seconds.toFixed(1)} s, and then it failed: ${reasonOf(failure!.error)}`;
  const title = titleOf(training, set);
  const report: TrainingReport = { schema: 1, title, settings, unit, ended, peakBytes, updates, evaluations };
  return { report, ...failure ? { failure } : {} };
}

/** Loss, learning rate, speed and share of the peak, for the live line. */
function noteOf({ loss, learningRate, perSecond, shareOfPeak, skipped }: UpdateRecord, unit: string): string {
  const rate = skipped ? "skipped" : `lr ${learningRate!.toExponential(1)}`;
  return `loss ${loss.toFixed(3)}, ${rate}, ${rateText(perSecond)} ${unit}/s, ${
    (100 * shareOfPeak).toFixed(1)
  } % of peak`;
}

const reasons: Readonly<Record<TrainResult["ended"], string>> = {
  steps: "all updates are made",
  epochs: "all data are used",
  patience: "evaluations found nothing better",
  signal: "interrupted",
};

function endedText({ ended, steps, loss, best, resumed }: TrainResult, seconds: number, save?: string): string {
  const now = resumed ? `, ${steps - resumed.step} of them now,` : "";
  const saved = save === undefined || steps === 0 ? "" : ` Saved in ${shown(checkpointPath(save, steps))}.`;
  const held = best ? `; the best held-out loss is ${best.loss.toFixed(4)}, after ${best.step} updates` : "";
  const last = loss === undefined ? "" : `, the last with a loss of ${loss.toFixed(4)}`;
  return `${steps} updates${now} in ${seconds.toFixed(1)} s${last}${held}: ${reasons[ended]}.${saved}`;
}

/** What was asked for, for the page and the metrics. */
function settingsOf({ flags, model, schedule, replicas, data, samples, optimizer }: Training, set: DeviceSet) {
  const { microbatches, stages, width } = sizesOf(schedule);
  const { budget, clip } = flags;
  return {
    model: model.name,
    parameters: countParameters(model),
    data: shown(data.name),
    schedule: variantOf(schedule),
    devices: `${countDevices(set)} ${set.mode}, ${set.adapter}`,
    ...transportOf(set),
    ...replicas > 1 ? { replicas, ...flags.shardOptimizer ? { "optimizer state": "sharded over replicas" } : {} } : {},
    stages,
    ...flags.layout === undefined ? {} : { layout: flags.layout },
    microbatches,
    ...width > 1 ? { width } : {},
    "samples of an update": samples * flags.accumulate,
    optimizer: optimizer.name,
    "learning rate": `${optimizer.learningRate}, ${flags.lrSchedule}${flags.warmUp ? `, warm-up ${flags.warmUp}` : ""}`,
    ...clip === undefined ? {} : { clip },
    precision: flags.precision,
    seed: flags.seed,
    updates: flags.steps,
    ...budget === undefined ? {} : { budget: formatBytes(budget) },
  };
}
