/** Throughput of schedules with and without 2BP: many short steps, interleaved, and what their times are made of. */
import { DeviceError } from "../gpu/device.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { expectValue, positive } from "../rules.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { type MakePipeline, type MeasurementOptions, startMeasurement } from "./measurement.ts";
import type { ThroughputReport } from "./throughput_report.ts";

/** What to measure, and how often. */
export interface ThroughputOptions extends MeasurementOptions {
  /** Pairs of steps for each schedule, after one round that is not counted. */
  readonly repeats: number;
}

/** Steps that {@link measureThroughput} takes. */
export function countSteps({ pairs, repeats }: Pick<ThroughputOptions, "pairs" | "repeats">): number {
  return 2 * pairs.length * (repeats + 1);
}

/**
 * Trains a model, alternating between the schedules and between each schedule without and with 2BP, so that a machine
 * that drifts drifts for all of them. A pipeline serves the schedules of its placement; for several placements give what makes
 * one. Where they do not fit into memory together, the placements are measured one after the other, and the report says so.
 *
 * The step time of virtual devices is composed: each action takes its device time and its share of the time by which the
 * step's wall clock exceeded the device times of all, which is what the host takes; a message takes what it is measured at.
 * What real devices do to each other (shared memory bandwidth, on software drivers the host on one of the cores) is
 * not in it; see `withContention`.
 *
 * @param pipeline One that the caller closes, or what makes the pipelines, which are closed here.
 * @throws {UserError} On an option out of its range or an unknown one, pairs whose schedules do not fit the pipeline or each other,
 * and virtual devices without timestamps; nothing has run then.
 */
export async function measureThroughput(
  set: DeviceSet,
  pipeline: Pipeline | MakePipeline,
  options: ThroughputOptions,
): Promise<ThroughputReport> {
  const { repeats, ...others } = options;
  expectValue("measureThroughput: repeats", repeats, positive);
  const measurement = startMeasurement(set, pipeline, others);
  const finish = async () => {
    for (let round = 0; round < repeats; round++) await measurement.round();
    measurement.close();
  };
  try {
    for (let placement = 0; placement < measurement.placements; placement++) {
      if (await measurement.isCrowded()) await finish();
      try {
        await measurement.open(placement);
      } catch (error) {
        if (placement === 0 || !isOfDevice(error)) throw error;
        await finish(); // alone it may fit
        await measurement.open(placement);
      }
    }
    await finish();
    return measurement.report();
  } finally {
    measurement.close();
  }
}

/** Whether a device, out of memory for example, is the reason of an error. */
export function isOfDevice(error: unknown): boolean {
  if (error instanceof DeviceError) return true;
  return error instanceof Error && isOfDevice(error.cause);
}
