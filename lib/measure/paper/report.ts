/** What a run of the models of the 2BP paper gives. */
import type { Mode } from "../../gpu/devices.ts";
import type { Precision } from "../../runtime/pipeline.ts";
import type { AblationReport } from "../ablation/measure.ts";
import type { Epoch } from "./epoch.ts";
import type { PaperPeaks } from "./memory.ts";
import type { SizeChoice } from "./size.ts";
import type { ClosedForm } from "../scaling.ts";
import type { ThroughputReport } from "../throughput_report.ts";

/** The gain of one schedule on so many ranks. */
export interface PaperScalingRow {
  /** Number of ranks. */
  readonly devices: number;
  /** Real or virtual devices; simulated where nothing was run. */
  readonly mode: Mode | "simulated";
  /** Name of the schedule. */
  readonly schedule: string;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** Step time without 2BP over step time with: median of pairs, or simulated. NaN where there are no costs to simulate with. */
  readonly gain: number;
  /** Quartiles of the pairs. */
  readonly spread?: readonly [number, number];
  /** How many there were. */
  readonly pairs?: number;
  /** Simulated from the costs measured in the same run. */
  readonly predicted?: number;
  /** How far `predicted` may be off, as in `Gain`. */
  readonly predictedWithin?: number;
  /** What theory says for equal costs. */
  readonly closedForm?: ClosedForm;
  /** Why nothing was run: the model has too few layers, or memory or time were too short. */
  readonly reason?: "layers" | "memory" | "time";
}

/** What was measured of a model. */
export interface PaperModelReport {
  /** The paper's model that was asked for. */
  readonly paper: string;
  /** Name, number of parameters and sizes of the model that was run. */
  readonly model: Readonly<Record<string, string | number>>;
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of ranks. */
  readonly devices: number;
  /** What they are. */
  readonly adapter: string;
  /** What tensors held. */
  readonly precision: Precision;
  /** What they hold in the paper's run; another than `precision` where the device has no f16. */
  readonly paperPrecision: Precision;
  /** How the size was found; absent where there was no choice. */
  readonly size?: SizeChoice;
  /** Interleaved pairs: a report for each number of samples in a micro-batch. */
  readonly throughput?: readonly ThroughputReport[];
  /** As the paper measures. */
  readonly epochs?: readonly Epoch[];
  /** Floating-point operations a second, on one device, while the pairs were run. */
  readonly rate?: number;
  /** Peaks of the model that was run. */
  readonly peaks?: readonly PaperPeaks[];
  /** Peaks of the paper's own size, predicted for GPUs, each with a rank of its own. */
  readonly paperPeaks?: readonly PaperPeaks[];
  /** Gains by number of ranks. */
  readonly scaling?: readonly PaperScalingRow[];
  /** Where the gains of 1F1B come from. */
  readonly ablation?: readonly AblationReport[];
}

/** A run of several models. */
export interface PaperReport {
  /** Version of this form. */
  readonly schema: 1;
  /** One for each model of the paper. */
  readonly models: readonly PaperModelReport[];
}
