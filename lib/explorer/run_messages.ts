/** What the page and the worker that trains on the visitor's GPU say to each other. */
import type { Machine } from "../measure/machine.ts";
import type { ThroughputReport } from "../measure/throughput_report.ts";
import type { SchedulePair } from "../schedules/transforms/pair.ts";

/** What the page asks for: which GPU there is, a run, or the end of the one under way. */
export type RunOrder = "look" | "stop" | Run;

/** A run. */
export interface Run {
  /** Without 2BP, and with it. */
  readonly pair: SchedulePair;
  /** Pairs of steps. */
  readonly repeats: number;
  /** Samples in a micro-batch. */
  readonly samples: number;
}

/** The visitor's GPU, as the browser describes it. */
export interface OwnGpu {
  /** All that it says of itself. */
  readonly name: string;
  /** Whether it is a processor that computes in a GPU's place. */
  readonly software: boolean;
}

/** An action of a measured step: composed times in milliseconds. */
export interface MeasuredBar {
  readonly rank: number;
  /** Place in the rank's list. */
  readonly index: number;
  readonly start: number;
  readonly end: number;
  readonly critical: boolean;
}

/** A measured step. */
export interface MeasuredStep {
  readonly bars: readonly MeasuredBar[];
  /** Its end, the optimizer's part included, in milliseconds. */
  readonly ms: number;
}

/** The report of a run so far, with what it was taken by. */
export interface RunReport extends ThroughputReport {
  /** What it was trained on. */
  readonly data: string;
  readonly seed: number;
  readonly machine: Pick<Machine, "twobp" | "commit" | "cores" | "date"> & {
    /** The browser's name for itself. */
    readonly runtime: string;
    /** What the browser says of the GPU, and what devices on it could do. */
    readonly gpu: GpuDescription;
  };
  /** What all device times of the run are multiples of, milliseconds: browsers may give timestamps in coarse steps. */
  readonly timestampStepMs: number;
}

/** What the browser says of a GPU. */
export interface GpuDescription {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly software: boolean;
  /** Lanes; 0 where that varies or is not said. */
  readonly subgroupSize: number;
  readonly features: readonly string[];
}

/** What the worker answers. */
export type RunAnswer =
  | { readonly gpu: OwnGpu }
  /** What is missing here, and what would be right. */
  | { readonly missing: string }
  /** A step was taken, of so many; the first ones are not counted. */
  | { readonly taken: number; readonly of: number; readonly loss: number }
  /** A pair of steps was counted: the report so far, and its last steps. */
  | { readonly report: RunReport; readonly last: readonly [MeasuredStep, MeasuredStep] }
  /** The run is over, or was stopped. */
  | { readonly over: "done" | "stopped" }
  | { readonly refused: string };
