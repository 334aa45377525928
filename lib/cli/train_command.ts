/** `deno task train`: trains a model on texts or images through a pipeline. */
import process from "node:process";
import { Command } from "commander";
import { formatBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { describeMachine } from "../measure/machine.ts";
import { measurePeak } from "../measure/peak.ts";
import { stageMemories } from "../measure/stage_memory.ts";
import { countParameters, type Model } from "../models/model.ts";
import { createModel } from "../models/registry.ts";
import { stageWork } from "../planning/stage_work.ts";
import { partitionTable } from "../report/partition.ts";
import { progress, type ProgressLine } from "../report/progress.ts";
import { tableText } from "../report/table.ts";
import {
  type EvaluationRecord,
  rateText,
  type TrainingReport,
  trainingSections,
  type UpdateRecord,
} from "../report/training.ts";
import { variantOf } from "../report/variant.ts";
import { partition } from "../runtime/partition.ts";
import { createPipeline, type Pipeline, type Precision } from "../runtime/pipeline.ts";
import { type RecomputeText, withRecompute } from "../runtime/recompute.ts";
import { sumsOf, type SumsPolicy } from "../runtime/sums.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import { pairOf, usualTwoStage } from "../schedules/transforms/pair.ts";
import { quoted, shown } from "../text.ts";
import type { Batch } from "../train/data.ts";
import type { LearningRate } from "../train/learning_rates.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import { prefetched } from "../train/prefetch.ts";
import { checkpointPath, prepareFolder, stepsIn } from "../training/checkpoint_folder.ts";
import { train, type TrainResult } from "../training/train.ts";
import { loadWeights } from "../weights/checkpoint.ts";
import { modelFrom } from "../weights/model_from.ts";
import { applyConfig } from "./config_file.ts";
import { onNextEnding } from "./endings.ts";
import * as flag from "./flags.ts";
import { loadSchedule } from "./load_schedule.ts";
import { type Metrics, type MetricsLine, openMetrics, readMetrics, upTo } from "./metrics_file.ts";
import { bytes, integer, oneOf, real } from "./options.ts";
import { openOutputs } from "./outputs.ts";
import { type DataFlags, heldOutBatches, openTrainingData, type TrainingData } from "./training_data.ts";
import { type OptimizerFlags, optimizerOf, rateNames, rateOf, usualRates } from "./training_optimizer.ts";
import { withDevices } from "./with_devices.ts";

interface Flags extends DataFlags, OptimizerFlags {
  config?: string;
  model?: string;
  length?: number;
  schedule: string;
  twoStage?: boolean;
  policy?: PolicyText;
  width?: number;
  devices?: number;
  microbatches?: number;
  virtual?: boolean;
  samples: number;
  accumulate: number;
  clip?: number;
  precision: Precision;
  recompute: RecomputeText;
  sums: SumsPolicy;
  budget?: number;
  evalEvery?: number;
  evalBatches?: number;
  patience?: number;
  save?: string;
  saveEvery?: number;
  keep?: number;
  resume?: boolean;
  metrics?: string;
  json?: string;
  html?: string;
  out?: string;
}

const rates = Object.entries(usualRates).map(([name, rate]) => `${rate} for ${name}`).join(", ");
const steps = integer(1, 1e9);

/** The command line. */
export function trainCommand(): Command {
  const command = new Command("train")
    .description(
      "Train a model on texts or images through a pipeline, without or with 2BP. Ctrl-C ends it after the update that is under way, and saves.",
    )
    .option("--config <file>", 'JSON with any of these settings by name, as in {"steps": 100}; flags go before it')
    .addOption(flag.model(undefined, [], " (default: llama-tiny)"))
    .option("--from <folder>", "a model with its weights, as Hugging Face has them: config.json and safetensors")
    .option("--length <n>", "tokens in a sequence, with --from (default: up to 2048)", integer(1, 2 ** 20))
    .option(
      "--data <path>",
      "a text, JSON lines, Parquet, or a folder of them; for ResNet a folder of class folders " +
        "(default: this project's sources, or synthetic images)",
    )
    .option("--field <name>", "where a line of JSON or a row of Parquet has its text (default: text)")
    .option("--tokenizer <path>", "a tokenizer.json, or its folder (default: that of --from, or bytes)")
    .option("--schedule <name>", "a schedule, or a CSV file of one", "1f1b-1")
    .addOption(flag.twoStage())
    .addOption(flag.policy("fill; for gpipe and naive end in one W"))
    .addOption(flag.width(65_536))
    .addOption(flag.devices(1, 16, 2))
    .addOption(flag.microbatches(1024, "the schedule's usual number"))
    .addOption(flag.virtual())
    .addOption(flag.samples(4))
    .option("--accumulate <k>", "batches that make one update, 1 to 65536", integer(1, 65_536), 1)
    .option("--steps <n>", "updates", steps, 200)
    .option("--optimizer <name>", Object.keys(usualRates).join(", "), oneOf(Object.keys(usualRates)), "adamw")
    .option("--lr <rate>", `learning rate at its peak (default: ${rates})`, real(0, 1e6))
    .option("--lr-schedule <name>", rateNames.join(", "), oneOf(rateNames), "constant")
    .option("--warm-up <n>", "updates in which the learning rate rises (default: 0)", integer(0, 1e9))
    .option("--lr-decay <n>", "last updates, in which warm-up-stable-decay falls (default: a fifth)", steps)
    .option("--lr-end <share>", "what the learning rate falls to, as a share of its peak (default: 0)", real(0, 1))
    .option("--weight-decay <share>", "of matrices (default: the optimizer's)", real(0, 1e6))
    .option("--momentum <share>", "of sgd and muon (default: the optimizer's)", real(0, 0.999999))
    .option("--clip <norm>", "the most that the norm of all gradients may be (default: not clipped)", real(1e-30, 1e30))
    .addOption(flag.seed())
    .addOption(flag.precision())
    .addOption(flag.recompute())
    .addOption(flag.sums())
    .option("--budget <size>", "the most memory that each device may take: 24GiB, 800MiB, 16e9", bytes)
    .option("--eval-every <k>", "evaluate after so many updates and at the end (default: never)", steps)
    .option("--eval-batches <n>", "batches in an evaluation, always the same (default: 4)", integer(1, 1e6))
    .option("--held-out <share>", "of the data, for evaluations (default: 0.1 with --eval-every)", real(0.000001, 0.5))
    .option("--patience <n>", "evaluations in a row without a better loss that end the training", steps)
    .option("--save <folder>", "save all that it takes to go on, a folder for each checkpoint")
    .option("--save-every <k>", "after so many updates, besides at the end (default: 100)", steps)
    .option("--keep <n>", "checkpoints that are kept, the last ones (default: 2)", steps)
    .option("--resume", "go on from the last whole checkpoint in the folder of --save, where there is one")
    .option("--metrics <file>", "write a line of JSON for each update and evaluation, at once; - for standard output")
    .addOption(flag.json("settings and all updates"))
    .addOption(flag.html("the curves"))
    .addOption(flag.out());
  return command.action(async () => {
    const { config } = command.opts<Flags>();
    if (config !== undefined) applyConfig(command, config);
    await run(command.opts<Flags>());
  });
}

/** What the flags ask for, all of it looked at before a device is opened. */
interface Training {
  readonly flags: Flags;
  readonly model: Model;
  readonly schedule: Schedule;
  readonly optimizer: OptimizerSpec;
  readonly rate: LearningRate;
  readonly data: TrainingData;
  /** Samples of a batch. */
  readonly samples: number;
  readonly heldOut: readonly Batch[];
  /** What the file of metrics has of a training that goes on. */
  readonly earlier: readonly MetricsLine[];
  readonly unit: "tokens" | "images";
}

async function run(flags: Flags): Promise<void> {
  const out = openOutputs(flags);
  const training = await prepare(flags);
  const { model, schedule, data } = training;
  const code = await withDevices(schedule.actions.length, { virtual: flags.virtual, say: out.say }, async (set) => {
    const parts = withRecompute(partition(model, schedule.placement.length), flags.recompute);
    out.say(titleOf(training, set));
    out.say(tableText(partitionTable(model, parts)));
    out.say(`Data: ${data.name}.`);
    const gflops = (await measurePeak(set.devices[0])).gflops * (set.mode === "real" ? set.devices.length : 1);
    const { optimizer } = training, { placement } = schedule, { seed, precision, recompute, sums, budget } = flags;
    const pipeline = createPipeline(set, model, {
      ...{ optimizer, placement, seed, precision, recompute, sums },
      ...budget === undefined ? {} : { budget },
    });
    try {
      if (flags.from !== undefined) loadWeights(pipeline, flags.from);
      const stop = new AbortController();
      let code = 0;
      onNextEnding((given) => {
        code = given;
        stop.abort();
      });
      const report = await trained(training, { set, pipeline, gflops, signal: stop.signal, say: out.say });
      out.say(`\n${report.ended}`);
      await out.results("train", {
        title: "Training",
        report,
        sections: () => trainingSections(report),
      });
      return code;
    } finally {
      pipeline.close();
    }
  });
  if (code !== 0) process.exit(code);
}

async function prepare(flags: Flags): Promise<Training> {
  const { evalEvery, evalBatches = 4, accumulate, recompute, sums } = flags;
  if (evalEvery === undefined) {
    const vain =
      ([["eval-batches", flags.evalBatches], ["held-out", flags.heldOut], ["patience", flags.patience]] as const)
        .find(([, value]) => value !== undefined);
    if (vain) throw new UserError(`--${vain[0]} is about evaluations; add --eval-every`);
  }
  const model = modelOf(flags), optimizer = optimizerOf(model, flags), rate = rateOf(flags);
  const schedule = await scheduleOf(model, flags, optimizer);
  withRecompute(partition(model, schedule.placement.length), recompute);
  sumsOf(sums, schedule.placement.length);
  const samples = flags.samples * sizesOf(schedule).microbatches;
  const data = await openTrainingData(model, flags, evalEvery === undefined ? 0 : flags.heldOut ?? 0.1);
  const heldOut = evalEvery === undefined ? [] : await heldOutBatches(data, evalBatches, samples);
  const unit = model.task === "image" ? "images" : "tokens";
  if (accumulate * samples * model.takes.inputs[0] > 2 ** 31) {
    throw new UserError(`--samples ${flags.samples}: an update of ${accumulate * samples} samples is too large`);
  }
  checkSaving(flags);
  const earlier = flags.resume ? readMetrics(flags.metrics) : [];
  if (flags.save !== undefined) prepareFolder(flags.save);
  return { flags, model, schedule, optimizer, rate, data, samples, heldOut, earlier, unit };
}

/** Refuses what would be lost, or do nothing. */
function checkSaving({ save, saveEvery, keep, resume }: Flags): void {
  if (save === undefined) {
    const vain = ([["save-every", saveEvery], ["keep", keep], ["resume", resume || undefined]] as const)
      .find(([, value]) => value !== undefined);
    if (vain) throw new UserError(`--${vain[0]} is about checkpoints; add --save FOLDER`);
    return;
  }
  const [last] = stepsIn(save);
  if (last === undefined || resume) return;
  throw new UserError(
    `--save ${
      shown(save)
    } has a checkpoint of ${last} updates: add --resume to go on from there, or give another folder`,
  );
}

function modelOf({ model, from, length }: Flags): Model {
  if (model !== undefined && from !== undefined) {
    throw new UserError(`--model ${quoted(model)} and --from ${quoted(from)} are two models: give one of the two`);
  }
  if (from !== undefined) return modelFrom(from, length === undefined ? {} : { length });
  if (length !== undefined) throw new UserError("--length is for a model of --from; those of --model have theirs");
  return createModel(model ?? "llama-tiny");
}

/** The schedule, with 2BP where that is asked for. */
async function scheduleOf(model: Model, flags: Flags, optimizer: OptimizerSpec): Promise<Schedule> {
  const { policy, width, samples, recompute, sums, precision } = flags;
  const base = loadSchedule(flags.schedule, { ...flags, devices: flags.devices ?? usualDevices(flags.schedule) });
  if (!flags.twoStage) {
    if (policy === undefined && width === undefined) return base;
    throw new UserError(`--${policy ? "policy" : "width"} says how --two-stage places W; add --two-stage`);
  }
  if (sizesOf(base).split) {
    throw new UserError(`${base.name} is split by itself, and has its own order of W: leave --two-stage out`);
  }
  if (policy === undefined && width === undefined) return pairOf(base, usualTwoStage(flags.schedule, base)).split;
  const how = { ...policy ? { policy } : {}, ...width ? { width } : {} };
  if (!/^(lean|cap)/.test(policy ?? "")) return pairOf(base, how).split;
  const { placement } = base;
  const shape = { placement, samples, optimizer, recompute, sums, precision, ...width ? { width } : {} };
  const stages = await stageMemories(model, shape);
  return pairOf(base, { ...how, memory: (stage) => stages[stage] }).split;
}

/** A file of a schedule says itself how many ranks it is for. */
const usualDevices = (schedule: string) => /\.csv$/i.test(schedule) ? undefined : 2;

function titleOf({ model, schedule, flags, samples, unit }: Training, set: DeviceSet): string {
  const { devices } = set, { microbatches } = sizesOf(schedule);
  const of = unit === "tokens" ? `${flags.samples} x ${model.takes.inputs[0]} tokens` : `${flags.samples} images`;
  const update = samples * flags.accumulate;
  return `${model.name} (${(countParameters(model) / 1e6).toFixed(1)} M parameters), ${variantOf(schedule)} on ` +
    `${devices.length} ${set.mode} devices (${set.adapter}); ${microbatches} micro-batches of ${of}, ` +
    `${update} samples an update; ${flags.optimizer}, ${flags.precision}`;
}

/** What a training runs on. */
interface Place {
  readonly set: DeviceSet;
  readonly pipeline: Pipeline;
  /** Of all devices together. */
  readonly gflops: number;
  readonly signal: AbortSignal;
  say(line: string): void;
}

async function trained(training: Training, { set, pipeline, gflops, signal, say }: Place): Promise<TrainingReport> {
  const { flags, model, schedule, rate, data, samples, heldOut, unit } = training;
  const { steps, clip, accumulate, evalEvery, patience, save, saveEvery = 100, keep = 2 } = flags;
  const { microbatches } = sizesOf(schedule);
  const work = stageWork(model, { stages: schedule.placement.length, samples: flags.samples });
  const flops = accumulate * microbatches *
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
    metrics = openMetrics(flags.metrics, kept);
    metrics.write({ kind: "run", settings, machine: describeMachine() });
    return metrics;
  };
  const peakBytes = set.devices.map(() => 0);
  const start = performance.now();
  let before = start, held = "";
  const result = await train(pipeline, {
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
  }).finally(() => bar?.done());
  const seconds = (performance.now() - start) / 1e3;
  begun(result.steps).write({ kind: "end", ended: result.ended, steps: result.steps, seconds });
  return {
    ...{ schema: 1, title: titleOf(training, set), settings, unit },
    ...{ ended: endedText(result, seconds, save), peakBytes, updates, evaluations },
  };
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
function settingsOf({ flags, model, schedule, data, samples, optimizer }: Training, set: DeviceSet) {
  const { microbatches, stages, width } = sizesOf(schedule);
  const { budget, clip } = flags;
  return {
    model: model.name,
    parameters: countParameters(model),
    data: shown(data.name),
    schedule: variantOf(schedule),
    devices: `${set.devices.length} ${set.mode}, ${set.adapter}`,
    stages,
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
