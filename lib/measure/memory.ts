/** Memory of schedules: what a step needs on each device, by category, predicted from shapes alone and measured. */
import { UserError } from "../errors.ts";
import type { DeviceSet, Mode } from "../gpu/devices.ts";
import { dryDevices } from "../gpu/dry.ts";
import { type DeviceKind, deviceKinds, driverOf, kindInFull } from "../gpu/kind.ts";
import type { Layer } from "../layers/layer.ts";
import { type Bytes, categories } from "../memory.ts";
import { countParameters, type Model, targetsOf } from "../models/model.ts";
import type { RankPeak } from "../runtime/rank.ts";
import { type Choices, setChoices } from "../ops/choice.ts";
import {
  createPipeline,
  type Pipeline,
  type PipelineOptions,
  type Precision,
  precisionRule,
} from "../runtime/pipeline.ts";
import { formatRecompute, type RecomputePolicy } from "../runtime/recompute.ts";
import { formatSums, type SumsPolicy } from "../runtime/sums.ts";
import { asBetweenProcesses } from "../runtime/transports/as_between_processes.ts";
import { countDevices, transportOf, worldOf, type WorldSet } from "../runtime/world.ts";
import { lower } from "../schedules/program.ts";
import type { Schedule } from "../schedules/schedule.ts";
import {
  anything,
  callback,
  expectFields,
  expectValue,
  filled,
  flag,
  oneOf,
  optional,
  positive,
  type Rules,
  whole,
} from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import type { Batch } from "../train/data.ts";
import { optimizerRule, type OptimizerSpec } from "../train/optimizers.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { type Variant, variant } from "./variant.ts";

/** What a prediction is for. */
export interface MemoryOptions {
  /** Its moments take memory too. */
  readonly optimizer: OptimizerSpec;
  /** The layers of each stage; by default cut by work. */
  readonly parts?: readonly (readonly Layer[])[];
  /**
   * Which kind of devices they are: `gpu.info.kind`. Kernels are chosen by it, which need workspaces and keep what others
   * do not. By default what the two options below point to.
   */
  readonly kind?: DeviceKind;
  /** Whether the devices are software drivers; no by default. */
  readonly software?: boolean;
  /** Lanes in a subgroup of the devices, 0, no subgroups, by default. A software driver of unsaid kind is SwiftShader where it has 4. */
  readonly subgroupSize?: number;
  /** What `calibrate` has chosen for the devices: attention keeps what its way needs. By default the rules hold. */
  readonly choices?: Choices;
  /** What is recomputed instead of kept; nothing by default. */
  readonly recompute?: RecomputePolicy;
  /** Who makes the sums that only a delayed W reads; "i" by default. */
  readonly sums?: SumsPolicy;
  /** How many copies of the pipeline there are, as in `PipelineOptions`: what their sums take is in the prediction. 1 by default. */
  readonly replicas?: number;
  /** Whether each replica keeps the moments of a piece, as in `PipelineOptions`; no by default. */
  readonly shardOptimizer?: boolean;
  /** Whether the ranks are in several processes, where a message that is waited for takes memory; no by default. */
  readonly apart?: boolean;
  /** What tensors hold, as in `PipelineOptions`; "f32" by default. */
  readonly precision?: Precision;
}

/**
 * The peaks of a step of `schedule` with micro-batches of `samples`, on each device (replica by replica, where there are several),
 * without any device: the step is run
 * with shapes alone. Of a schedule of forward passes alone, see `forwardOnly`, they are those of an evaluation.
 *
 * ```ts
 * import { adamw, createModel, generate, predictMemory } from "twobp";
 *
 * const schedule = generate("1f1b-1", { devices: 2 });
 * const peaks = await predictMemory(createModel("llama-tiny"), schedule, 8, { optimizer: adamw() });
 * console.log(peaks.map(({ total }) => total));
 * ```
 *
 * @throws {UserError} What `validate` says of the schedule; when `samples` is no whole number of 1 or more.
 */
export async function predictMemory(
  model: Model,
  schedule: Schedule,
  samples: number,
  options: MemoryOptions,
): Promise<readonly RankPeak[]> {
  expectValue("predictMemory: samples", samples, positive);
  const { devices, microbatches } = sizesOf(schedule);
  const pipeline = dryPipeline(model, devices, { ...options, placement: schedule.placement });
  try {
    const batch = blankBatch(model, samples * microbatches * pipeline.replicas);
    const isForward = lower(schedule).forwardOnly;
    return (await (isForward ? pipeline.evaluate(schedule, batch) : pipeline.step(schedule, batch))).peaks;
  } finally {
    pipeline.close();
  }
}

/** A pipeline of so many ranks on devices that compute nothing, as many for each replica. */
export function dryPipeline(
  model: Model,
  ranks: number,
  { choices = {}, apart = false, ...options }: MemoryOptions & Pick<PipelineOptions, "placement">,
): Pipeline {
  expectValue("the kind of device", options.kind, optional(oneOf(deviceKinds)));
  const on = kindInFull(options);
  const { optimizer, parts, placement, replicas = 1, shardOptimizer, recompute, sums, precision } = options;
  const within: DeviceSet = {
    mode: "real",
    devices: dryDevices(ranks * replicas, on),
    adapter: "no device, shapes only",
    driver: driverOf(on.kind),
    close: () => {},
  };
  const set: DeviceSet | WorldSet = apart ? { ...within, world: worldOf(within, asBetweenProcesses) } : within;
  for (const { gpu } of set.devices) setChoices(gpu, choices);
  return createPipeline(set, model, {
    optimizer,
    parts,
    placement,
    replicas,
    shardOptimizer,
    recompute,
    sums,
    precision,
  });
}

/** A batch of the right size with nothing in it: zeros, or of side inputs what comes nearest. */
export function blankBatch(model: Model, samples: number): Batch {
  const { inputs, vocabulary, sides = {} } = model.takes;
  const zeros = (type: "u32" | "f32", count: number) =>
    type === "u32" ? new Uint32Array(count) : new Float32Array(count);
  const { type, shape } = targetsOf(model, samples);
  const needed = Object.entries(sides).filter(([, { otherwise }]) => otherwise === undefined);
  const brought = needed.map(([name, { type, shape, least = -Infinity, most = Infinity }]) => {
    const nearest = Math.min(Math.max(0, least), most);
    return [name, zeros(type, samples * sizeOf(shape)).fill(nearest)] as const;
  });
  return {
    samples,
    inputs: zeros(vocabulary === undefined ? "f32" : "u32", samples * sizeOf(inputs)),
    targets: zeros(type, sizeOf(shape)),
    ...brought.length > 0 ? { sides: Object.fromEntries(brought) } : {},
  };
}

/** Peaks of one device. */
export interface DeviceMemory {
  /** Which rank it is. */
  readonly rank: number;
  /** Of which copy of the pipeline; absent where there is one. */
  readonly replica?: number;
  /** Bytes by category, from shapes. */
  readonly predicted: Bytes;
  /** Bytes by category, of a step that was run. */
  readonly measured?: Bytes;
  /** All categories together, from shapes. */
  readonly predictedPeak: number;
  /** All categories together, of a step that was run. */
  readonly measuredPeak?: number;
  /** Measured less predicted, by category. */
  readonly difference?: Bytes;
  /** The most bytes of all buffers, free ones that are kept for later included: of the run, or of the prediction without one. */
  readonly reserved: number;
}

/** Memory of one schedule. */
export interface MemoryRow extends Variant {
  /** What is recomputed instead of kept, as the command line says it. */
  readonly recompute: string;
  /** Who makes the sums that only a delayed W reads: "i" or "w". */
  readonly sums: string;
  /** By rank, replica by replica. */
  readonly devices: readonly DeviceMemory[];
}

/** A memory run. */
export interface MemoryReport {
  /** Version of this form. */
  readonly schema: 1;
  /** What was measured on; "predicted" where nothing was run. */
  readonly mode: Mode | "predicted";
  /** Which kind of devices it is of: kernels are chosen by it. Reports before this field have none. */
  readonly kind?: DeviceKind;
  /** Number of devices: ranks times replicas. */
  readonly devices: number;
  /** Copies of the pipeline; absent where there is one. */
  readonly replicas?: number;
  /** Whether each replica keeps the moments of a piece; absent where there is one. */
  readonly shardOptimizer?: boolean;
  /** What carries messages between ranks, "mpi"; absent where all ranks are in one process. */
  readonly transport?: string;
  /** Its library, with the version. */
  readonly library?: string;
  /** The model's name, number of parameters and sizes. */
  readonly model: Readonly<Record<string, string | number>>;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** What tensors hold. */
  readonly precision: Precision;
  /** One for each schedule and each kind of recomputation. */
  readonly rows: readonly MemoryRow[];
}

/** What to look at. */
export interface MemoryRunOptions {
  /** All for the same number of ranks; their stages may be placed differently. */
  readonly schedules: readonly Schedule[];
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** The optimizer in use. */
  readonly optimizer: OptimizerSpec;
  /** What to recompute, a row for each; nothing by default. */
  readonly recompute?: readonly RecomputePolicy[];
  /** Who makes the sums that only a delayed W reads, a row for each where there is one; "i" by default. */
  readonly sums?: readonly SumsPolicy[];
  /** What tensors hold; "f32" by default. */
  readonly precision?: Precision;
  /** Copies of the pipeline, each with micro-batches of its own; 1 by default. */
  readonly replicas?: number;
  /** Whether each replica keeps the moments of a piece; no by default. */
  readonly shardOptimizer?: boolean;
  /** Where to measure; without devices there are only predictions. */
  readonly set?: DeviceSet;
  /** Without devices, the kind of device that predictions are for, as in `MemoryOptions`. */
  readonly kind?: DeviceKind;
  /** Without devices, the lanes in its subgroups. */
  readonly subgroupSize?: number;
  /** Called after each row. */
  readonly onRow?: () => void;
}

const rules: Rules<MemoryRunOptions> = {
  schedules: filled,
  samples: positive,
  optimizer: optimizerRule,
  recompute: optional(filled),
  sums: optional(filled),
  precision: optional(precisionRule),
  replicas: optional(positive),
  shardOptimizer: optional(flag),
  set: anything,
  kind: optional(oneOf(deviceKinds)),
  subgroupSize: optional(whole(0)),
  onRow: optional(callback),
};

/**
 * Predicts the memory of each schedule, and measures it where there are devices. `model` makes the model anew for each.
 *
 * @throws {UserError} On sizes that are no whole numbers of 1 or more, no schedules, or schedules for other numbers of ranks than
 * each other's or than the set has for each replica.
 */
export async function reportMemory(model: () => Model, options: MemoryRunOptions): Promise<MemoryReport> {
  expectValue("reportMemory: the model", model, { ...callback, right: "a function that makes one" });
  expectFields("reportMemory", options, rules);
  const { schedules, samples, optimizer, recompute = ["none"], sums = ["i"], precision = "f32", set, onRow } = options;
  const { replicas = 1, shardOptimizer } = options;
  const ranks = set ? countDevices(set) / replicas : sizesOf(schedules[0]).devices;
  const stray = schedules.find((schedule) => sizesOf(schedule).devices !== ranks);
  if (stray) {
    throw new UserError(
      `reportMemory: schedule ${stray.name} is for ${sizesOf(stray).devices} ranks, the others for ${ranks}`,
    );
  }
  const rows: MemoryRow[] = [];
  for (const [schedule, policy, maker] of variantsOf({ schedules, recompute, sums })) {
    const { kind, subgroupSize } = set?.devices[0].gpu.info ?? options;
    const how = { optimizer, recompute: policy, sums: maker, precision, replicas, shardOptimizer };
    const apart = set !== undefined && transportOf(set).transport !== undefined;
    const predicted = await predictMemory(model(), schedule, samples, { ...how, kind, subgroupSize, apart });
    const measured = set && await measureMemory(set, model(), schedule, samples, how);
    rows.push({
      ...variant(schedule),
      recompute: formatRecompute(policy),
      sums: formatSums(maker),
      devices: predicted.map(({ total, categories: bytes, reserved }, peer) => ({
        rank: peer % ranks,
        ...(replicas > 1 ? { replica: Math.floor(peer / ranks) } : {}),
        predicted: bytes,
        predictedPeak: total,
        ...(measured
          ? {
            measured: measured[peer].categories,
            measuredPeak: measured[peer].total,
            difference: differenceOf(measured[peer].categories, bytes),
          }
          : {}),
        reserved: measured?.[peer].reserved ?? reserved,
      })),
    });
    onRow?.();
  }
  const { name, configuration } = model();
  return {
    schema: 1,
    mode: set?.mode ?? "predicted",
    kind: set?.devices[0].gpu.info.kind ?? kindInFull(options).kind,
    devices: ranks * replicas,
    ...(replicas > 1 ? { replicas, shardOptimizer: shardOptimizer ?? false } : {}),
    ...set ? transportOf(set) : {},
    model: { name, parameters: countParameters(model()), ...configuration },
    samples,
    precision,
    rows,
  };
}

/** Each schedule with what is recomputed and who makes the sums: I where there is no W of its own. */
function variantsOf(
  { schedules, recompute = ["none"], sums = ["i"] }: Pick<MemoryRunOptions, "schedules" | "recompute" | "sums">,
) {
  return schedules.flatMap((schedule) => {
    const makers = sizesOf(schedule).split ? sums : ["i" as const];
    return recompute.flatMap((policy) => makers.map((maker) => [schedule, policy, maker] as const));
  });
}

/** Rows that {@link reportMemory} makes. */
export function countRows(options: Pick<MemoryRunOptions, "schedules" | "recompute" | "sums">): number {
  return variantsOf(options).length;
}

function differenceOf(measured: Bytes, predicted: Bytes): Bytes {
  const entries = categories.map((category) => [category, measured[category] - predicted[category]]);
  return Object.fromEntries(entries) as Bytes;
}

/** The peaks of a second step: in the first, staging buffers and kernels are still being made. */
async function measureMemory(
  set: DeviceSet,
  model: Model,
  schedule: Schedule,
  samples: number,
  options: MemoryOptions & PipelineOptions,
): Promise<readonly RankPeak[]> {
  const pipeline = createPipeline(set, model, { ...options, placement: schedule.placement });
  try {
    const batch = blankBatch(model, samples * sizesOf(schedule).microbatches * pipeline.replicas);
    set.devices.forEach(({ pool }) => pool.trim()); // of other schedules
    await pipeline.step(schedule, batch);
    return (await pipeline.step(schedule, batch)).peaks;
  } finally {
    pipeline.close();
  }
}
