/** What a training is to be: the flags of `deno task train`, looked at. */
import { formatBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { predictMemory } from "../measure/memory.ts";
import { stageMemories } from "../measure/stage_memory.ts";
import type { Layer } from "../layers/layer.ts";
import { loraModel } from "../models/lora_model.ts";
import type { Model } from "../models/model.ts";
import { createModel } from "../models/registry.ts";
import { parseLayout } from "../runtime/layout.ts";
import { partition } from "../runtime/partition.ts";
import type { Precision } from "../runtime/pipeline.ts";
import { type RecomputeText, withRecompute } from "../runtime/recompute.ts";
import { formatSums, sumsOf, type SumsPolicy } from "../runtime/sums.ts";
import { isInJob } from "../runtime/transports/mpi/launcher.ts";
import { placeOf, transportOf } from "../runtime/world.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import { pairOf, usualTwoStage } from "../schedules/transforms/pair.ts";
import { quoted, shown } from "../text.ts";
import type { Batch } from "../train/data.ts";
import type { LearningRate } from "../train/learning_rates.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import { savedRate } from "../training/checkpoint.ts";
import { prepareFolder, stepsIn } from "../training/checkpoint_folder.ts";
import { modelFrom } from "../weights/model_from.ts";
import { withAhead } from "./ahead.ts";
import { loadSchedule } from "./load_schedule.ts";
import { devicesOf, expectReplicas, ranksOf } from "./replica_flags.ts";
import { type MetricsLine, readMetrics } from "./metrics_file.ts";
import { type DataFlags, heldOutBatches, openTrainingData, type TrainingData } from "./training_data.ts";
import { type OptimizerFlags, optimizerOf, rateOf } from "./training_optimizer.ts";

/** The flags of `deno task train`. */
export interface TrainFlags extends DataFlags, OptimizerFlags {
  config?: string;
  model?: string;
  length?: number;
  lora?: number;
  loraAlpha?: number;
  loraTargets?: RegExp;
  adapters?: string;
  schedule: string;
  twoStage?: boolean;
  policy?: PolicyText;
  width?: number;
  devices?: number;
  replicas?: number;
  shardOptimizer?: boolean;
  microbatches?: number;
  virtual?: boolean;
  layout?: string;
  samples: number;
  accumulate: number;
  clip?: number;
  precision: Precision;
  recompute: RecomputeText;
  recomputeAhead?: boolean;
  splitStages?: number;
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
  /** The layers of each stage. */
  readonly parts: readonly (readonly Layer[])[];
  readonly optimizer: OptimizerSpec;
  readonly rate: LearningRate;
  readonly data: TrainingData;
  /** Copies of the pipeline, each with its share of every batch. */
  readonly replicas: number;
  /** Samples of a batch, of all replicas together. */
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
  const { evalEvery, evalBatches = 4, accumulate, recompute, sums, replicas = 1 } = flags;
  expectReplicas(undefined, flags);
  if (evalEvery === undefined) {
    const vain =
      ([["eval-batches", flags.evalBatches], ["held-out", flags.heldOut], ["patience", flags.patience]] as const)
        .find(([, value]) => value !== undefined);
    if (vain) throw new UserError(`--${vain[0]} is about evaluations; add --eval-every`);
  }
  const model = modelOf(flags), optimizer = optimizerOf(model, flags), rate = rateOf(flags);
  const { schedule, parts } = await scheduleOf(model, flags, optimizer);
  devicesOf(schedule.actions.length, flags); // refuses too many
  withRecompute(parts, recompute);
  const makers = sumsOf(sums, schedule.placement.length);
  if (makers.includes("w") && !sizesOf(schedule).split) {
    throw new UserError(
      `--sums ${formatSums(sums)}: ${schedule.name} has no delayed W that could make them; add --two-stage`,
    );
  }
  const samples = flags.samples * sizesOf(schedule).microbatches * replicas;
  const data = await openTrainingData(model, flags, evalEvery === undefined ? 0 : flags.heldOut ?? 0.1);
  const heldOut = evalEvery === undefined ? [] : await heldOutBatches(data, evalBatches, samples);
  const unit = model.task === "image" ? "images" : "tokens";
  if (accumulate * samples * model.takes.inputs[0] > 2 ** 31) {
    throw new UserError(`--samples ${flags.samples}: an update of ${accumulate * samples} samples is too large`);
  }
  checkSaving(flags);
  checkRate(flags, optimizer);
  const earlier = flags.resume ? readMetrics(flags.metrics) : [];
  for (const folder of [flags.save, flags.adapters]) if (folder !== undefined) prepareFolder(folder);
  return { flags, model, schedule, parts, replicas, optimizer, rate, data, samples, heldOut, earlier, unit };
}

/**
 * Looks whether a step fits into `--budget`, by one on dry devices of the same kind.
 *
 * @throws {UserError} When it does not: what the rank that needs most needs.
 */
export async function expectFits(
  { flags, model, schedule, parts, replicas, optimizer }: Training,
  set: DeviceSet,
) {
  const { budget, samples, precision, recompute, sums, shardOptimizer } = flags;
  if (budget === undefined) return;
  const { kind, subgroupSize } = set.devices[0].gpu.info, apart = transportOf(set).transport !== undefined;
  const how = {
    kind,
    subgroupSize,
    optimizer,
    parts,
    replicas,
    shardOptimizer,
    precision,
    recompute,
    sums,
    apart,
  };
  const needed = (await predictMemory(model, schedule, samples, how)).map((peak) => peak.needed);
  const most = Math.max(...needed);
  if (most <= budget) return;
  const { number, replica } = placeOf(needed.indexOf(most), schedule.actions.length);
  throw new UserError(
    `--budget ${formatBytes(budget)}: an update needs ${formatBytes(most)} on rank ${number}` +
      `${replicas > 1 ? ` of replica ${replica}` : ""}; ` +
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

/** Refuses to go on with a learning rate that nobody has named, where the checkpoint was made with another. */
function checkRate({ resume, save, lr }: TrainFlags, { learningRate }: OptimizerSpec): void {
  const saved = resume && lr === undefined ? savedRate(save!) : undefined;
  if (saved === undefined || saved.rate === learningRate) return;
  throw new UserError(
    `--resume: ${shown(saved.path)} was made with --lr ${saved.rate}, and the usual one is ${learningRate}: ` +
      `add --lr ${saved.rate} to go on as before, or another`,
  );
}

/** The model, with adapters where they are asked for. */
function modelOf(flags: TrainFlags): Model {
  const { lora: rank, loraAlpha: alpha, loraTargets: targets = /^(?!head$)/ } = flags, base = baseOf(flags);
  if (rank !== undefined) return loraModel(base, { rank, targets, ...alpha === undefined ? {} : { alpha } });
  const vain = (["loraAlpha", "loraTargets", "adapters"] as const).find((name) => flags[name] !== undefined);
  if (vain === undefined) return base;
  const name = vain.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`);
  throw new UserError(`--${name} is about adapters; add --lora RANK`);
}

function baseOf({ model, from, length }: TrainFlags): Model {
  if (model !== undefined && from !== undefined) {
    throw new UserError(`--model ${quoted(model)} and --from ${quoted(from)} are two models: give one of the two`);
  }
  if (from !== undefined) return modelFrom(from, length === undefined ? {} : { length });
  if (length !== undefined) throw new UserError("--length is for a model of --from; those of --model have theirs");
  return createModel(model ?? "llama-tiny");
}

/** The schedule, with 2BP where that is asked for, and the layers of its stages. */
async function scheduleOf(
  model: Model,
  flags: TrainFlags,
  optimizer: OptimizerSpec,
): Promise<Pick<Training, "schedule" | "parts">> {
  const { policy, width, samples, recompute, sums, precision, replicas, shardOptimizer } = flags;
  const devices = ranksOf(flags.devices, flags) ?? usualDevices(flags.schedule);
  const loaded = loadSchedule(flags.schedule, { ...flags, devices });
  if (loaded.actions.every((list) => list.every(({ kind }) => kind === "F"))) {
    throw new UserError(
      `${loaded.name} runs forward passes alone, and learns nothing: give a schedule with backward passes`,
    );
  }
  const { placement } = loaded, stages = placement.length;
  const parts = flags.layout === undefined ? partition(model, placement) : parseLayout(model, flags.layout);
  if (parts.length !== stages) {
    throw new UserError(
      `--layout ${
        quoted(flags.layout ?? "")
      } has ${parts.length} stages, and ${loaded.name} on ${loaded.actions.length} ` +
        `ranks has ${stages}`,
    );
  }
  const base = flags.recomputeAhead ? withAhead(loaded, parts, recompute) : loaded;
  if (!flags.twoStage) {
    if (policy === undefined && width === undefined) return { schedule: base, parts };
    throw new UserError(`--${policy ? "policy" : "width"} says how --two-stage places W; add --two-stage`);
  }
  if (sizesOf(base).split) {
    throw new UserError(`${base.name} is split by itself, and has its own order of W: leave --two-stage out`);
  }
  if (policy === undefined && width === undefined) {
    return { schedule: pairOf(base, usualTwoStage(flags.schedule, base)).split, parts };
  }
  const how = { ...policy ? { policy } : {}, ...width ? { width } : {} };
  if (!/^(lean|cap)/.test(policy ?? "")) return { schedule: pairOf(base, how).split, parts };
  const shape = {
    ...{ placement, parts, samples, optimizer, recompute, sums, precision, replicas, shardOptimizer, apart: isInJob() },
    ...width ? { width } : {},
  };
  const memories = await stageMemories(model, shape);
  return { schedule: pairOf(base, { ...how, memory: (stage) => memories[stage] }).split, parts };
}

/** A file of a schedule says itself how many ranks it is for. */
const usualDevices = (schedule: string) => /\.csv$/i.test(schedule) ? undefined : 2;
