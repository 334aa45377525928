/** Throughput of schedules with and without 2BP: many short steps, interleaved, and what their times are made of. */
import type { DeviceSet, Mode } from "../gpu/devices.ts";
import { countParameters } from "../models/model.ts";
import type { Pipeline, Precision } from "../pipeline/pipeline.ts";
import type { Schedule } from "../schedules/actions.ts";
import { simulate } from "../schedules/simulate.ts";
import type { BatchSource } from "../train/data.ts";
import { createCostCollector, type MeasuredCosts, replayCosts, type Transfer } from "./costs.ts";
import { explainGain, type Gain } from "./gain.ts";
import { collectGarbage } from "./garbage.ts";
import { median } from "./statistics.ts";

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
  /** What was computed again instead of kept, as the command line says it. */
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
  /** Time of a message between virtual devices; free by default. */
  readonly transfer?: Transfer;
  /** Called after each step, the uncounted ones included. */
  readonly onStep?: (loss: number) => void;
}

/** Steps that {@link measureThroughput} takes. */
export function countSteps({ pairs, repeats }: Pick<ThroughputOptions, "pairs" | "repeats">): number {
  return 2 * pairs.length * (repeats + 1);
}

/**
 * Trains the pipeline's model, alternating between the schedules and between each schedule without and with 2BP, so that a
 * machine that drifts drifts for all of them.
 */
export async function measureThroughput(
  set: DeviceSet,
  pipeline: Pipeline,
  { pairs, source, samples, repeats, transfer, onStep }: ThroughputOptions,
): Promise<ThroughputReport> {
  const stages = pipeline.parts.length;
  const measured = pairs.map(({ base, split }) => ({
    base: createRow(base),
    split: createRow(split),
    collector: createCostCollector(stages, set.devices.length),
  }));
  const losses: number[][] = [];
  const unexplained: number[] = [];
  for (let round = 0; round <= repeats; round++) {
    losses.push([]);
    for (const [index, { base, split }] of pairs.entries()) {
      for (const [schedule, row] of [[base, measured[index].base], [split, measured[index].split]] as const) {
        const batch = source.next(samples * schedule.microbatches);
        collectGarbage();
        const result = await pipeline.step(schedule, batch);
        losses[round].push(result.loss);
        onStep?.(result.loss);
        if (round === 0) continue; // kernels are compiled and buffers made
        const { intervals, wallMs, peaks } = result;
        if (set.mode === "virtual" && !intervals) {
          throw new Error(`${set.adapter} has no timestamps, which virtual devices are composed from`);
        }
        const simulated = intervals && simulate(schedule, replayCosts(schedule, intervals, transfer));
        const stepMs = set.mode === "virtual" ? simulated!.makespan : wallMs;
        const busy = simulated ? simulated.busy.reduce((sum, time) => sum + time, 0) : NaN;
        row.stepMs.push(stepMs);
        row.bubble.push(1 - busy / (set.devices.length * stepMs));
        peaks.forEach(({ total }, rank) => row.peakBytes[rank] = Math.max(row.peakBytes[rank] ?? 0, total));
        if (intervals) measured[index].collector.add(schedule, intervals);
        unexplained.push(1 - (simulated?.makespan ?? NaN) / wallMs);
      }
    }
  }
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
      return explainGain(base, split, times, costs[index], transfer);
    }),
    unexplained: set.mode === "virtual" || !hasTimes ? NaN : median(unexplained),
    costs: Object.fromEntries(pairs.flatMap(({ base }, index) => costs[index] ? [[base.name, costs[index]]] : [])),
    loss: { first: mean(losses[0]), last: mean(losses[repeats]) },
  };
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
  const { name, twoStage, policy, width, microbatches } = schedule;
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
