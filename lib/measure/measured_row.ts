/** A row of a throughput report while it is measured. */
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { kept, median } from "./statistics.ts";
import type { ThroughputRow } from "./throughput_report.ts";
import { variant } from "./variant.ts";

/** The counted steps of one schedule. */
export interface Row {
  /** Which. */
  readonly schedule: Schedule;
  /** Of each step. */
  readonly stepMs: number[];
  /** Idle share of device time in each; NaN without device times. */
  readonly bubble: number[];
  /** By rank the most bytes of all of them. */
  readonly peakBytes: number[];
}

/** A row without a step. */
export function createRow(schedule: Schedule): Row {
  return { schedule, stepMs: [], bubble: [], peakBytes: [] };
}

/** The row as the report has it; `samples` of a micro-batch, of all replicas together; `predictedMs` NaN where it is not known. */
export function finishRow(
  { schedule, stepMs, bubble, peakBytes }: Row,
  samples: number,
  recompute: string,
  sums: string,
  predictedMs: number,
): ThroughputRow {
  const { microbatches } = sizesOf(schedule);
  const middle = median(stepMs);
  return {
    ...variant(schedule),
    recompute,
    sums,
    microbatches,
    stepMs: { median: middle, min: Math.min(...stepMs), max: Math.max(...stepMs), each: kept(stepMs) },
    ...(Number.isNaN(predictedMs) ? {} : { predictedMs }),
    samplesPerSecond: samples * microbatches / middle * 1000,
    bubbleRatio: median(bubble),
    ...(bubble.some(Number.isNaN) ? {} : { bubbleRatios: kept(bubble) }),
    peakBytes,
  };
}
