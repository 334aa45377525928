/** Throughput of schedules with and without 2BP: many short steps, interleaved, and what their times are made of. */
import { UserError } from "../errors.ts";
import type { DeviceSet, Mode } from "../gpu/devices.ts";
import type { Interval } from "../gpu/timing.ts";
import { countParameters } from "../models/model.ts";
import type { Pipeline, Precision } from "../runtime/pipeline.ts";
import { callback, expectFields, expectValue, filled, having, optional, positive, type Rules } from "../rules.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { type Costs, withHostOverhead } from "../schedules/price/costs.ts";
import { simulate } from "../schedules/price/simulate.ts";
import type { BatchSource } from "../train/data.ts";
import {
  createCostCollector,
  hostPerAction,
  type MeasuredCosts,
  replayCosts,
  type Transfer,
  updatesAfter,
} from "./costs.ts";
import { explainGain, type Gain } from "./gain.ts";
import { collectGarbage } from "../gpu/garbage.ts";
import { measureLinks, type Overheads } from "./overheads.ts";
import { median } from "./statistics.ts";
import { sizesOf } from "../schedules/check/sizes.ts";

/** A schedule without 2BP, and what `twoStage` made of it. */
export interface SchedulePair {
  /** Made of F and B. */
  readonly base: Schedule;
  /** Made of F, I and W. */
  readonly split: Schedule;
}

/** Measured throughput of one schedule. */
export interface ThroughputRow {
  /** Name of the schedule. */
  readonly schedule: string;
  /** Whether backward passes were split. */
  readonly twoStage: boolean;
  /** When the delayed W ran. */
  readonly policy?: string;
  /** Most micro-batches in one W. */
  readonly width: number;
  /** What was recomputed instead of kept, as the command line says it. */
  readonly recompute: string;
  /** Micro-batches in a step. */
  readonly microbatches: number;
  /** Step times: wall clock on real devices, composed on virtual ones. */
  readonly stepMs: { readonly median: number; readonly min: number; readonly max: number };
  /** Samples trained in a second, at the median step time. */
  readonly samplesPerSecond: number;
  /** Idle device time over devices x step time, median over the steps; NaN without device timestamps. */
  readonly bubbleRatio: number;
  /** The most bytes in use at once on each device, in any step. */
  readonly peakBytes: readonly number[];
}

/** A throughput run. Times are milliseconds; a sample is a sequence or an image. */
export interface ThroughputReport {
  /** Version of this form. */
  readonly schema: 1;
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of ranks. */
  readonly devices: number;
  /** What they are. */
  readonly adapter: string;
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
  /** Mean loss over the first and the last round of steps. */
  readonly loss: { readonly first: number; readonly last: number };
}

/** What to measure. */
export interface ThroughputOptions {
  /** What to compare. */
  readonly pairs: readonly SchedulePair[];
  /** Where batches come from. */
  readonly source: BatchSource;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** Pairs of steps for each schedule, after one round that is not counted. */
  readonly repeats: number;
  /** Time of a message between virtual devices; by default what it is measured at on the device they share. */
  readonly transfer?: Transfer;
  /** Called after each step, the uncounted ones included. */
  readonly onStep?: (loss: number) => void;
}

const rules: Rules<Omit<ThroughputOptions, "repeats">> = {
  pairs: filled,
  source: having("next"),
  samples: positive,
  transfer: optional(callback),
  onStep: optional(callback),
};

/** Steps that {@link measureThroughput} takes. */
export function countSteps({ pairs, repeats }: Pick<ThroughputOptions, "pairs" | "repeats">): number {
  return 2 * pairs.length * (repeats + 1);
}

/** One counted step. */
export interface StepSample {
  /** What ran. */
  readonly schedule: Schedule;
  /** Its time: wall clock on real devices, composed on virtual ones. */
  readonly ms: number;
  /** Device times, as `StepResult.intervals` gives them; absent without device timestamps. */
  readonly intervals?: readonly (readonly Interval[])[];
  /** What the step, composed of its device times, comes to: with host and messages on virtual devices, without on real ones. */
  readonly costs?: Costs;
}

/** A measurement under way, round by round. */
export interface Measurement {
  /** Takes each schedule's steps once; the first time uncounted. Returns the counted steps without and with 2BP, pair by pair. */
  round(): Promise<readonly (readonly [StepSample, StepSample])[]>;
  /** What the rounds so far give. */
  report(): ThroughputReport;
}

/**
 * Trains the pipeline's model, alternating between the schedules and between each schedule without and with 2BP, so that a
 * machine that drifts drifts for all of them.
 *
 * The step time of virtual devices is composed: each action takes its device time and its share of the time by which the
 * step's wall clock exceeded the device times of all, which is what the host takes; a message takes what it is measured at.
 * What real devices do to each other (shared memory bandwidth, on software drivers the host on one of the cores) is
 * not in it; see `withContention`.
 *
 * @throws {UserError} On an option out of its range or an unknown one, pairs whose schedules do not fit the pipeline or each other,
 * and virtual devices without timestamps; nothing has run then.
 */
export async function measureThroughput(
  set: DeviceSet,
  pipeline: Pipeline,
  options: ThroughputOptions,
): Promise<ThroughputReport> {
  const { repeats, ...others } = options;
  expectValue("measureThroughput: repeats", repeats, positive);
  const measurement = startMeasurement(set, pipeline, others);
  for (let round = 0; round <= repeats; round++) await measurement.round();
  return measurement.report();
}

/**
 * {@link measureThroughput} in the caller's rhythm, for measurements of several pipelines in turn.
 *
 * @throws {UserError} As {@link measureThroughput}.
 */
export function startMeasurement(
  set: DeviceSet,
  pipeline: Pipeline,
  options: Omit<ThroughputOptions, "repeats">,
): Measurement {
  expectFields("measureThroughput", options, rules);
  const { pairs, source, samples, transfer, onStep } = options;
  const stages = pipeline.parts.length;
  const isVirtual = set.mode === "virtual";
  checkPairs(pairs, set.devices.length, stages);
  if (isVirtual && !set.devices[0].gpu.info.timestamps) {
    throw new UserError(`${set.adapter} has no timestamps, which virtual devices are composed from`);
  }
  const after = updatesAfter(pipeline, set.devices.length);
  const measured = pairs.map(({ base, split }) => ({
    base: createRow(base),
    split: createRow(split),
    collector: createCostCollector(stages, set.devices.length, after),
    /** Device times of the last uncounted step. */
    warm: [] as readonly number[],
  }));
  const losses: number[][] = [];
  const unexplained: number[] = [], host: number[] = [];
  let link = transfer;

  async function step(schedule: Schedule, index: number, row: Row, counted: boolean): Promise<StepSample> {
    const batch = await source.next(samples * sizesOf(schedule).microbatches);
    collectGarbage();
    const result = await pipeline.step(schedule, batch);
    losses[losses.length - 1].push(result.loss);
    onStep?.(result.loss);
    const { intervals, wallMs, peaks } = result;
    if (!counted) { // kernels are compiled and buffers made
      if (intervals) measured[index].warm = intervals.flat().map(({ start, end }) => end - start);
      return { schedule, ms: NaN };
    }
    const perAction = isVirtual ? hostPerAction(intervals!, wallMs) : 0;
    const costs = intervals && withHostOverhead(replayCosts(schedule, intervals, link, after), perAction);
    const simulated = costs && simulate(schedule, costs);
    const stepMs = isVirtual ? simulated!.makespan : wallMs;
    const busy = intervals?.flat().reduce((sum, { start, end }) => sum + end - start, 0) ?? NaN;
    row.stepMs.push(stepMs);
    row.bubble.push(1 - busy / (set.devices.length * stepMs));
    peaks.forEach(({ total }, rank) => row.peakBytes[rank] = Math.max(row.peakBytes[rank] ?? 0, total));
    if (intervals) measured[index].collector.add(schedule, intervals);
    unexplained.push(1 - (simulated?.makespan ?? NaN) / wallMs);
    host.push(perAction);
    return { schedule, ms: stepMs, ...(intervals ? { intervals, costs } : {}) };
  }

  return {
    async round() {
      const counted = losses.push([]) > 1;
      const steps: [StepSample, StepSample][] = [];
      for (const [index, { base, split }] of pairs.entries()) {
        steps.push([
          await step(base, index, measured[index].base, counted),
          await step(split, index, measured[index].split, counted),
        ]);
      }
      if (!counted && isVirtual) {
        link ??= await measureLinks(
          set.devices[0],
          pipeline,
          pairs[0].base,
          samples,
          measured.flatMap(({ warm }) => warm),
        );
      }
      return steps;
    },
    report() {
      const hasTimes = !unexplained.some(Number.isNaN);
      const costs = measured.map(({ collector }) => hasTimes ? collector.costs() : undefined);
      const { model } = pipeline;
      return {
        schema: 1,
        mode: set.mode,
        devices: set.devices.length,
        adapter: set.adapter,
        model: { name: model.name, parameters: countParameters(model), ...model.configuration },
        samples,
        precision: pipeline.precision,
        rows: measured.flatMap(({ base, split }) =>
          [base, split].map((row) => finishRow(row, samples, pipeline.recompute))
        ),
        gains: pairs.map(({ base, split }, index) => {
          const steps = measured[index];
          const times = steps.base.stepMs.map((time, at) => [time, steps.split.stepMs[at]] as const);
          return explainGain(base, split, times, costs[index], isVirtual ? link : undefined);
        }),
        unexplained: isVirtual || !hasTimes ? NaN : median(unexplained),
        ...(isVirtual
          ? {
            overheads: {
              hostMsPerAction: median(host),
              messageMs: set.devices.slice(1).map((_, rank) => link?.(rank, rank + 1) ?? 0),
              measured: !transfer,
            },
          }
          : {}),
        costs: Object.fromEntries(pairs.flatMap(({ base }, index) => costs[index] ? [[base.name, costs[index]]] : [])),
        loss: { first: mean(losses[0]), last: mean(losses[losses.length - 1]) },
      };
    },
  };
}

/** Throws unless each pair is one schedule without and with 2BP, of this size. */
function checkPairs(pairs: readonly SchedulePair[], devices: number, stages: number): void {
  for (const pair of pairs) {
    const [base, split] = [pair.base, pair.split].map((schedule) => {
      const sizes = sizesOf(schedule);
      if (sizes.devices === devices && sizes.stages === stages) return sizes;
      throw new UserError(
        `Schedule ${schedule.name} is for ${sizes.stages} stages on ${sizes.devices} devices, ` +
          `the pipeline has ${stages} on ${devices}`,
      );
    });
    if (base.microbatches !== split.microbatches) {
      throw new UserError(
        `The schedules of a pair must do the same work; ${pair.base.name} has ${base.microbatches} micro-batches, ` +
          `${pair.split.name} with 2BP ${split.microbatches}`,
      );
    }
  }
}

interface Row {
  readonly schedule: Schedule;
  readonly stepMs: number[];
  readonly bubble: number[];
  readonly peakBytes: number[];
}

function createRow(schedule: Schedule): Row {
  return { schedule, stepMs: [], bubble: [], peakBytes: [] };
}

function finishRow(
  { schedule, stepMs, bubble, peakBytes }: Row,
  samples: number,
  recompute: string,
): ThroughputRow {
  const { name, policy } = schedule;
  const { split: twoStage, width, microbatches } = sizesOf(schedule);
  const middle = median(stepMs);
  return {
    schedule: name,
    twoStage,
    ...(policy ? { policy } : {}),
    width,
    recompute,
    microbatches,
    stepMs: { median: middle, min: Math.min(...stepMs), max: Math.max(...stepMs) },
    samplesPerSecond: samples * microbatches / middle * 1000,
    bubbleRatio: median(bubble),
    peakBytes,
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
