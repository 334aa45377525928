/** What a training is to be: the flags of `deno task train`, looked at. */
import { formatBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { predictMemory } from "../measure/memory.ts";
import { stageMemories } from "../measure/stage_memory.ts";
import type { Model } from "../models/model.ts";
import { createModel } from "../models/registry.ts";
import { partition } from "../runtime/partition.ts";
import type { Precision } from "../runtime/pipeline.ts";
import { type RecomputeText, withRecompute } from "../runtime/recompute.ts";
import { formatSums, sumsOf, type SumsPolicy } from "../runtime/sums.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import { pairOf, usualTwoStage } from "../schedules/transforms/pair.ts";
import { quoted, shown } from "../text.ts";
import type { Batch } from "../train/data.ts";
import type { LearningRate } from "../train/learning_rates.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import { prepareFolder, stepsIn } from "../training/checkpoint_folder.ts";
import { modelFrom } from "../weights/model_from.ts";
import { loadSchedule } from "./load_schedule.ts";
import { type MetricsLine, readMetrics } from "./metrics_file.ts";
import { type DataFlags, heldOutBatches, openTrainingData, type TrainingData } from "./training_data.ts";
import { type OptimizerFlags, optimizerOf, rateOf } from "./training_optimizer.ts";

/** The flags of `deno task train`. */
export interface TrainFlags extends DataFlags, OptimizerFlags {
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

/** What the flags ask for, all of it looked at before a device is opened. */
export interface Training {
  readonly flags: TrainFlags;
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

/**
 * Looks at all flags, before a device is opened.
 *
 * @throws {UserError} What is wrong with one, or with what it leads to.
 */
export async function prepare(flags: TrainFlags): Promise<Training> {
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
  const makers = sumsOf(sums, schedule.placement.length);
  if (makers.includes("w") && !sizesOf(schedule).split) {
    throw new UserError(
      `--sums ${formatSums(sums)}: ${schedule.name} has no delayed W that could make them; add --two-stage`,
    );
  }
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

/**
 * Looks whether a step fits into `--budget`, by one on dry devices of the same kind.
 *
 * @throws {UserError} When it does not: what the rank that needs most needs.
 */
export async function expectFits({ flags, model, schedule, optimizer }: Training, { devices }: DeviceSet) {
  const { budget, samples, precision, recompute, sums } = flags;
  if (budget === undefined) return;
  const { software, subgroupSize } = devices[0].gpu.info;
  const kind = { optimizer, precision, recompute, sums, software, subgroupSize };
  const needed = (await predictMemory(model, schedule, samples, kind)).map((peak) => peak.needed);
  const most = Math.max(...needed);
  if (most <= budget) return;
  throw new UserError(
    `--budget ${formatBytes(budget)}: an update needs ${formatBytes(most)} on rank ${needed.indexOf(most)}; ` +
      "give fewer --samples or --microbatches, more --devices, --recompute, or another --schedule",
  );
}

/** Refuses what would be lost, or do nothing. */
function checkSaving({ save, saveEvery, keep, resume }: TrainFlags): void {
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

function modelOf({ model, from, length }: TrainFlags): Model {
  if (model !== undefined && from !== undefined) {
    throw new UserError(`--model ${quoted(model)} and --from ${quoted(from)} are two models: give one of the two`);
  }
  if (from !== undefined) return modelFrom(from, length === undefined ? {} : { length });
  if (length !== undefined) throw new UserError("--length is for a model of --from; those of --model have theirs");
  return createModel(model ?? "llama-tiny");
}

/** The schedule, with 2BP where that is asked for. */
async function scheduleOf(model: Model, flags: TrainFlags, optimizer: OptimizerSpec): Promise<Schedule> {
  const { policy, width, samples, recompute, sums, precision } = flags;
  const base = loadSchedule(flags.schedule, { ...flags, devices: flags.devices ?? usualDevices(flags.schedule) });
  if (base.actions.every((list) => list.every(({ kind }) => kind === "F"))) {
    throw new UserError(
      `${base.name} runs forward passes alone, and learns nothing: give a schedule with backward passes`,
    );
  }
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
