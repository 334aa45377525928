/** Throughput of schedules with and without 2BP: many short steps, interleaved, and what their times are made of. */
import { DeviceError } from "../gpu/device_error.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { callback, expectValue, optional, positive, type Rule } from "../rules.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { ofAllDevices } from "../runtime/world.ts";
import { type MakePipeline, type MeasurementOptions, startMeasurement } from "./measurement.ts";
import type { ThroughputReport } from "./throughput_report.ts";
import { isLookedAt, isWithin } from "./until.ts";

const share: Rule = {
  right: "a number above 0 and below 1",
  accepts: (value) => typeof value === "number" && value > 0 && value < 1,
};

/** What to measure, and how often. */
export interface ThroughputOptions extends MeasurementOptions {
  /** Pairs of steps for each schedule, after one round that is not counted; with `within` the most. */
  readonly repeats: number;
  /**
   * How well each gain is to be known, as a share of it: 0.02 ends the measurement, before `repeats`, once the 95 % intervals of all gains
   * reach no further than 2 % to either side. It is looked at after 12 pairs and each time after a third more.
   * By simulation at least 90 of 100 such intervals hold the true median: stopping where they are narrow costs some of the 95.
   */
  readonly within?: number;
  /** Called after each counted round with its number, and with what makes a report of all so far; not where placements are measured one after the other. */
  readonly onRound?: (round: number, soFar: () => ThroughputReport) => void;
}

/** Steps that {@link measureThroughput} takes, at most. */
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
  const { repeats, within, onRound, ...others } = options;
  expectValue("measureThroughput: repeats", repeats, positive);
  if (within !== undefined) expectValue("measureThroughput: within", within, share);
  expectValue("measureThroughput: onRound", onRound, optional(callback));
  const measurement = startMeasurement(set, pipeline, others);
  let isTogether = true;
  const finish = async () => {
    const ratios = new Map<number, number[]>();
    for (let round = 1; round <= repeats; round++) {
      for (const { pair, steps: [without, with2] } of await measurement.round()) {
        ratios.set(pair, [...ratios.get(pair) ?? [], without.ms / with2.ms]);
      }
      if (isTogether) onRound?.(round, () => measurement.report());
      if (within === undefined || !isLookedAt(round)) continue;
      // Each process has its own clock: the first one's counts for all.
      const isKnown = isWithin(ratios.values(), within);
      if ((await ofAllDevices(set, set.devices.map(() => isKnown)))[0]) break;
    }
    measurement.close();
  };
  const apart = async () => {
    isTogether = false;
    await finish();
  };
  try {
    for (let placement = 0; placement < measurement.placements; placement++) {
      if (await measurement.isCrowded()) await apart();
      try {
        await measurement.open(placement);
      } catch (error) {
        if (placement === 0 || !isOfDevice(error)) throw error;
        await apart(); // alone it may fit
        await measurement.open(placement);
      }
    }
    await finish();
    return { ...measurement.report(), ...within === undefined ? {} : { within } };
  } finally {
    measurement.close();
  }
}

/** Whether a device, out of memory for example, is the reason of an error. */
export function isOfDevice(error: unknown): boolean {
  if (error instanceof DeviceError) return true;
  return error instanceof Error && isOfDevice(error.cause);
}
