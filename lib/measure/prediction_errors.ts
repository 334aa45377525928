/** How far predicted step times and gains are from measured ones, schedule by schedule, and over all of them. */
import type { Mode } from "../gpu/devices.ts";
import { UserError } from "../errors.ts";
import { type StageCost, stageCosts } from "../schedules/price/costs.ts";
import { simulate } from "../schedules/price/simulate.ts";
import type { SchedulePair } from "../schedules/transforms/pair.ts";
import { kept, median, quantile } from "./statistics.ts";
import type { ThroughputReport } from "./throughput_report.ts";

/** What was predicted and measured of a schedule, in milliseconds; of two numbers the first is without 2BP, the second with. */
export interface PredictedRow {
  /** Its name. */
  readonly schedule: string;
  /** Micro-batches in a step. */
  readonly microbatches: number;
  /** Medians of what was measured. */
  readonly stepMs: readonly [number, number];
  /** The same, simulated with the device times of the same run. */
  readonly predictedMs: readonly [number, number];
  /** Median of the gains measured. */
  readonly gain: number;
  /** Simulated so. */
  readonly predicted: number;
  /** Step times simulated with counted work, in floating-point operations. */
  readonly counted: readonly [number, number];
}

/** The schedules of a model in one run. */
export interface PredictedRun {
  /** Its name. */
  readonly model: string;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** Counted rounds of interleaved steps. */
  readonly rounds: number;
  /** Schedule by schedule. */
  readonly rows: readonly PredictedRow[];
}

/** Errors, as shares of what was measured: predicted over measured, less one. */
export interface ErrorSummary {
  /** Of the signed errors: above 0, predictions are rather too large. */
  readonly median: number;
  /** Of the errors without their signs the 95 % quantile, interpolated. */
  readonly within: number;
  /** How many predictions these are of. */
  readonly cases: number;
}

/** What predictions are off on one kind of devices. */
export interface PredictionErrors {
  /** Of step times, without and with 2BP; absent where there is none. */
  readonly step?: ErrorSummary;
  /** Of gains. */
  readonly gain?: ErrorSummary;
  /** Of step times from counted work, each over that of plain 1F1B with as many micro-batches in the same run. */
  readonly counted?: ErrorSummary;
}

/** The same with the kind: a line of the table that {@link errorBar} reads. */
export interface KeptErrors extends PredictionErrors {
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of devices. */
  readonly devices: number;
  /** Of which driver, by {@link driverOf}. */
  readonly driver: string;
}

/** The driver in the name of an adapter: its first word. */
export function driverOf(adapter: string): string {
  return /^[^\s:(]*/.exec(adapter)![0];
}

/**
 * What a throughput run predicted and measured.
 *
 * @param pairs The run's, in its order.
 * @param workOf The work of a model cut into so many stages, as `stageWork()` counts it.
 * @throws {UserError} For a run on devices without timestamps, which has no predictions.
 */
export function predictedRun(
  { model, samples, rows, gains, adapter }: ThroughputReport,
  pairs: readonly SchedulePair[],
  workOf: (stages: number) => readonly StageCost[],
): PredictedRun {
  const rowOf = ({ base, split }: SchedulePair, at: number): PredictedRow => {
    const both = [rows[2 * at], rows[2 * at + 1]] as const, [{ microbatches }] = both;
    const costs = stageCosts(workOf(base.placement.length));
    const [without, with2BP] = both.map(({ predictedMs }) => predictedMs);
    if (without === undefined || with2BP === undefined) {
      throw new UserError(`${adapter} has no timestamps, which predictions are made from`);
    }
    const of = (a: number, b: number) => kept([a, b]) as [number, number];
    const [gain, predicted] = of(gains[at].gain, gains[at].predicted);
    return {
      schedule: base.name,
      microbatches,
      stepMs: of(both[0].stepMs.median, both[1].stepMs.median),
      predictedMs: of(without, with2BP),
      gain,
      predicted,
      counted: of(simulate(base, costs).makespan, simulate(split, costs).makespan),
    };
  };
  return { model: String(model.name), samples, rounds: gains[0].pairs, rows: pairs.map(rowOf) };
}

/** The signed errors of a schedule: of the steps without and with 2BP, and of the gain. */
export function errorsOf({ stepMs, predictedMs, gain, predicted }: PredictedRow): readonly [number, number, number] {
  return [predictedMs[0] / stepMs[0] - 1, predictedMs[1] / stepMs[1] - 1, predicted / gain - 1];
}

/** What counted work says of a run's steps in those of its plain 1F1B, over what was measured, less one; none without that. */
function countedErrors({ rows }: PredictedRun): number[] {
  const plain = rows.find(({ schedule }) => schedule === "1f1b");
  if (!plain) return [];
  const alike = rows.filter(({ microbatches }) => microbatches === plain.microbatches);
  return alike.flatMap((row) =>
    ([0, 1] as const).flatMap((which) =>
      row === plain && which === 0
        ? [] // by itself
        : [row.counted[which] / plain.counted[0] / (row.stepMs[which] / plain.stepMs[0]) - 1]
    )
  );
}

/** The errors of these runs together. */
export function predictionErrors(runs: readonly PredictedRun[]): PredictionErrors {
  const errors = runs.flatMap(({ rows }) => rows).map(errorsOf);
  const [step, gain] = [errors.flatMap(([without, split]) => [without, split]), errors.map(([, , gain]) => gain)];
  const all = { step, gain, counted: runs.flatMap(countedErrors) };
  return Object.fromEntries(
    Object.entries(all).filter(([, { length }]) => length > 0).map(([name, each]) => [name, summaryOf(each)]),
  );
}

function summaryOf(errors: readonly number[]): ErrorSummary {
  return { median: median(errors), within: quantile(errors.map(Math.abs), 0.95), cases: errors.length };
}
