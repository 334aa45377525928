/** What a plan is for, and what it is. */
import type { DeviceKind } from "../gpu/kind.ts";
import type { Layer } from "../layers/layer.ts";
import type { Sums } from "../layers/sums.ts";
import type { Precision } from "../runtime/pipeline.ts";
import type { RecomputeText } from "../runtime/recompute.ts";
import type { Cluster } from "../schedules/price/cluster.ts";
import type { Neighbours, Network } from "../schedules/price/replicas.ts";
import type { Schedule } from "../schedules/schedule.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import type { LeftOut } from "./cluster_levels.ts";

/** What a plan is for. */
export interface PlanOptions {
  /** Number of devices: of ranks, times replicas. */
  readonly devices: number;
  /** Micro-batches in a step, of which each replica has its share. */
  readonly microbatches: number;
  /** Copies of the pipeline that share the batch, 1 by default; `auto` tries every number that divides devices and micro-batches. */
  readonly replicas?: number | "auto";
  /** Hosts that the devices are on, as many on each; 1 by default. */
  readonly hosts?: number;
  /**
   * What connects the devices, in seconds and bytes a second, and how many floating-point operations each does in a second: needed for
   * replicas, and messages take time by it too. With a `cluster`, its file has links and bytes instead.
   */
  readonly network?: Network & { readonly operations: number };
  /** Whether each replica keeps the moments of a part of the parameters and updates it (ZeRO, stage 1); no by default. */
  readonly shardOptimizer?: boolean;
  /** Bytes of each device: what `createPipeline` may be given as its budget. Infinity for no limit. */
  readonly budget: number;
  /** Samples in a micro-batch, 1 by default. */
  readonly samples?: number;
  /** AdamW by default: its moments take memory too. */
  readonly optimizer?: OptimizerSpec;
  /** f32 by default. */
  readonly precision?: Precision;
  /** Whether the ranks are in several processes, where a message that is waited for takes memory; no by default. */
  readonly apart?: boolean;
  /** Which kind of devices they are, as in `MemoryOptions`: other kernels need other workspaces. */
  readonly kind?: DeviceKind;
  /** Whether the devices are software drivers; no by default. */
  readonly software?: boolean;
  /** Lanes in their subgroups: 0, where they differ or are not known, by default. */
  readonly subgroupSize?: number;
  /**
   * What the stages, messages, hosts and ends of steps of these devices take, in place of counted work: of the same model, cut as
   * the plan cuts it, in the same precision, with as many samples in a micro-batch.
   */
  readonly cluster?: Cluster;
  /** Called with the share of the stages' memory models that are made, from 0 to 1: what takes the time. */
  readonly onProgress?: (share: number) => void;
}

/** What a plan runs: for `pipeline.step` and `createPipeline`. */
export interface Planned {
  /** For `pipeline.step`. */
  readonly schedule: Schedule;
  /** The layers of each stage, for `createPipeline`. */
  readonly parts: readonly (readonly Layer[])[];
  /** What each stage recomputes, for `createPipeline`. */
  readonly recompute: readonly RecomputeText[];
  /** Who makes the sums of each stage that only a delayed W reads, for `createPipeline`. */
  readonly sums: readonly Sums[];
}

/** What to run, and what it gives up. */
export interface TrainingPlan extends Planned {
  /** Simulated time of a step, in floating-point operations of one device; in milliseconds where a cluster was given. */
  readonly makespan: number;
  /** What `makespan` is made of: counted work, or the times of the cluster that was given. */
  readonly times: "counted" | "cluster";
  /** Bytes that each rank needs, as predicted: see `RankPeak.needed`. */
  readonly peak: readonly number[];
  /** The fastest plan without a budget. */
  readonly unlimited: { readonly schedule: Schedule; readonly makespan: number; readonly peak: readonly number[] };
  /** How many replicas there are, and which devices are on a host together. */
  readonly replicas: number;
  /** What neighbours on a host are, where there are several replicas and hosts. */
  readonly neighbours?: Neighbours;
  /** What not hiding the sums over replicas behind actions costs: by how much of the makespan they are exposed. */
  readonly exposedSums: number;
  /** The step by plain 1F1B at the same levels and cut, with its sums after it. */
  readonly plain: number;
  /** The fastest plan whose stages have equal work, as near as can be, without the budget where it has no room; plain 1F1B so. */
  readonly equal: Planned & { readonly makespan: number; readonly plain: number };
  /** What was not tried, since the cluster that was given has no times for it. */
  readonly leftOut: readonly LeftOut[];
}
