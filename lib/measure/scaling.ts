/** Throughput and 2BP's gain against the number of devices: throughput runs of one model, side by side. */
import type { Mode } from "../gpu/devices.ts";
import { expectValue, filled, positive } from "../rules.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import type { MeasuredCosts } from "./costs.ts";
import type { Gain } from "./gain.ts";
import type { Overheads } from "./overheads.ts";
import type { ThroughputReport, ThroughputRow } from "./throughput_report.ts";

/** What theory says of a schedule where F, I and W take equal times and messages none. */
export interface ClosedForm {
  /** Idle share without 2BP. */
  readonly without: number;
  /** Idle share with 2BP. */
  readonly with: number;
  /** Step time without 2BP over step time with. */
  readonly gain: number;
}

/**
 * The closed form for one of the four schedules of the 2BP paper, with equal costs, W at the end in GPipe and filling idle
 * slots in the others; undefined for other schedules. Derived, and checked against the simulator.
 *
 * ```ts
 * import { closedForm } from "twobp/measure";
 *
 * console.log(closedForm("1f1b-1", 4)?.gain); // 1.4
 * ```
 *
 * @throws {UserError} When `devices` is no whole number of 1 or more.
 */
export function closedForm(schedule: string, devices: number): ClosedForm | undefined {
  expectValue("closedForm: devices", devices, positive);
  const entry = zoo.find(({ name }) => name === schedule);
  if (!entry?.twoStage) return undefined;
  const microbatches = entry.microbatches(devices);
  const work = 3 * microbatches;
  const without = work + entry.published.bubble(devices, microbatches), split = work + entry.twoStage.bubble(devices);
  return { without: 1 - work / without, with: 1 - work / split, gain: without / split };
}

/** A row of a throughput run, and of which. */
export interface ScalingRow extends ThroughputRow {
  /** Number of ranks. */
  readonly devices: number;
  /** Real or virtual. */
  readonly mode: Mode;
}

/** A gain, and of which run. */
export interface ScalingGain extends Gain {
  /** Number of ranks. */
  readonly devices: number;
  /** Real or virtual. */
  readonly mode: Mode;
  /** What theory says for equal costs; absent for schedules without a closed form. */
  readonly closedForm?: ClosedForm;
}

/** What a run of one number of devices says of itself. */
export interface ScalingRun {
  /** Number of ranks. */
  readonly devices: number;
  /** Real or virtual. */
  readonly mode: Mode;
  /** As in {@link ThroughputReport}. */
  readonly unexplained: number;
  /** As in {@link ThroughputReport}. */
  readonly overheads?: Overheads;
  /** As in {@link ThroughputReport}. */
  readonly costs: Readonly<Record<string, MeasuredCosts>>;
  /** As in {@link ThroughputReport}. */
  readonly apart?: readonly (readonly string[])[];
}

/** A scaling run. */
export interface ScalingReport {
  /** Version of this form. */
  readonly schema: 1;
  /** What the devices are. */
  readonly adapter: string;
  /** The model's name, number of parameters and sizes. */
  readonly model: Readonly<Record<string, string | number>>;
  /** Samples in a micro-batch, the same for any number of devices. */
  readonly samples: number;
  /** By number of devices, as in a throughput run. */
  readonly rows: readonly ScalingRow[];
  /** By number of devices. */
  readonly gains: readonly ScalingGain[];
  /** One for each number of devices. */
  readonly runs: readonly ScalingRun[];
}

/**
 * Puts throughput runs of the same model and micro-batches side by side, in the order given.
 *
 * @throws {UserError} Unless there is at least one.
 */
export function joinRuns(reports: readonly ThroughputReport[]): ScalingReport {
  expectValue("joinRuns: the runs", reports, filled);
  const [{ adapter, model, samples }] = reports;
  return {
    schema: 1,
    adapter,
    model,
    samples,
    rows: reports.flatMap(({ devices, mode, rows }) => rows.map((row) => ({ ...row, devices, mode }))),
    gains: reports.flatMap(({ devices, mode, gains }) =>
      gains.map((gain) => {
        const theory = closedForm(gain.schedule, devices);
        return { ...gain, devices, mode, ...(theory ? { closedForm: theory } : {}) };
      })
    ),
    runs: reports.map(({ devices, mode, unexplained, overheads, costs, apart }) => ({
      devices,
      mode,
      unexplained,
      ...(overheads ? { overheads } : {}),
      costs,
      ...(apart ? { apart } : {}),
    })),
  };
}
