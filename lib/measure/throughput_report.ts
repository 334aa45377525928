/** What a throughput run gives. */
import type { Mode } from "../gpu/devices.ts";
import type { Precision } from "../runtime/pipeline.ts";
import type { MeasuredCosts } from "./costs.ts";
import type { Gain } from "./gain.ts";
import type { Overheads } from "./overheads.ts";
import type { Variant } from "./variant.ts";

/** Measured throughput of one schedule. */
export interface ThroughputRow extends Variant {
  /** What was recomputed instead of kept, as the command line says it. */
  readonly recompute: string;
  /** Who made the sums that only a delayed W reads, as the command line says it. */
  readonly sums: string;
  /** Micro-batches in a step, of each replica. */
  readonly microbatches: number;
  /** Step times: wall clock on real devices, composed on virtual ones. */
  readonly stepMs: {
    readonly median: number;
    readonly min: number;
    readonly max: number;
    /** Each step's, in the order taken, to five digits; reports before this field have none. */
    readonly each?: readonly number[];
  };
  /**
   * The step time that the simulator makes of the measured device times, with messages and host on virtual devices; absent
   * without device timestamps, and in reports before this field.
   */
  readonly predictedMs?: number;
  /** Samples trained in a second, at the median step time. */
  readonly samplesPerSecond: number;
  /** Idle device time over devices x step time, median over the steps; NaN without device timestamps. */
  readonly bubbleRatio: number;
  /** Each step's, in the order taken, to five digits; absent without device timestamps. */
  readonly bubbleRatios?: readonly number[];
  /** The most bytes in use at once on each device, in any step. */
  readonly peakBytes: readonly number[];
}

/** A throughput run. Times are milliseconds; a sample is a sequence or an image. */
export interface ThroughputReport {
  /** Version of this form. */
  readonly schema: 1;
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of devices: ranks times replicas. */
  readonly devices: number;
  /** Copies of the pipeline, each with its share of the batch; absent where there is one. */
  readonly replicas?: number;
  /** What they are. */
  readonly adapter: string;
  /** What carries messages between ranks, "mpi"; absent where all ranks are in one process. */
  readonly transport?: string;
  /** Its library, with the version. */
  readonly library?: string;
  /** The model's name, number of parameters and sizes. */
  readonly model: Readonly<Record<string, string | number>>;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** What tensors held. */
  readonly precision: Precision;
  /** Each schedule without and with 2BP. */
  readonly rows: readonly ThroughputRow[];
  /** One for each pair of schedules. */
  readonly gains: readonly Gain[];
  /**
   * Share of the real step time that the step's own action times, composed by the simulator, do not account for: host,
   * transfers, waits. Median over all steps. NaN for virtual devices, whose step times are composed, and without device timestamps.
   */
  readonly unexplained: number;
  /** What virtual devices' step times hold besides device times; absent for real ones, whose clock has it all. */
  readonly overheads?: Overheads;
  /** Device times that the predictions rest on, schedule by schedule. */
  readonly costs: Readonly<Record<string, MeasuredCosts>>;
  /** How well each gain was to be known, as a share of it; absent where so many pairs were asked for. */
  readonly within?: number;
  /** Counted steps in which gradients overflowed, so that nothing was updated; absent where there were none, as in f32. */
  readonly skipped?: number;
  /** Mean loss over the first and the last round of steps. */
  readonly loss: { readonly first: number; readonly last: number };
  /**
   * Where the pipelines of all placements did not fit into memory together: the names of the schedules whose steps
   * alternated, one list after the other.
   */
  readonly apart?: readonly (readonly string[])[];
}
