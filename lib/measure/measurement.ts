/** A throughput measurement under way: pipelines, rounds of steps, and what their times add up to. */
import { UserError } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { collectGarbage } from "../gpu/garbage.ts";
import type { Interval } from "../gpu/timing.ts";
import { countParameters } from "../models/model.ts";
import { withCandidates } from "../ops/choice.ts";
import { callback, expectFields, filled, having, optional, positive, type Rules } from "../rules.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { countDevices, ofAllDevices, transportOf } from "../runtime/world.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { type Costs, withHostOverhead, withStall } from "../schedules/price/costs.ts";
import { simulate } from "../schedules/price/simulate.ts";
import type { Schedule } from "../schedules/schedule.ts";
import type { BatchSource } from "../train/data.ts";
import {
  type CostCollector,
  createCostCollector,
  hostPerAction,
  replayCosts,
  type SumCosts,
  type Transfer,
  updatesAfter,
  withSums,
} from "./costs.ts";
import { freeMemory } from "./free_memory.ts";
import { errorBar } from "./error_bar.ts";
import { explainGain, predictStep } from "./gain.ts";
import { checkPairs, type MeasuredPair } from "./measured_pairs.ts";
import { createRow, finishRow, type Row } from "./measured_row.ts";
import { measureLinks } from "./overheads.ts";
import { median } from "./statistics.ts";
import { byReplica, type Exchange, measureSums, medianSums, slowestOf, sumsOfStep } from "./sums.ts";
import type { ThroughputReport } from "./throughput_report.ts";

/** What to measure. */
export interface MeasurementOptions {
  /** What to compare. */
  readonly pairs: readonly MeasuredPair[];
  /** Where batches come from. */
  readonly source: BatchSource;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** How many replicas the pipelines that are made have; 1 by default. One that is given says it itself. */
  readonly replicas?: number;
  /** Time of a message between virtual devices; by default what it is measured at on the device they share. */
  readonly transfer?: Transfer;
  /** Time in which a replica sends so many bytes to the others, for the sums of virtual devices; by default what a message of them takes. */
  readonly exchange?: Exchange;
  /** Called after each step, the uncounted ones included. */
  readonly onStep?: (loss: number) => void;
}

const rules: Rules<MeasurementOptions> = {
  pairs: filled,
  source: having("next"),
  samples: positive,
  replicas: optional(positive),
  transfer: optional(callback),
  exchange: optional(callback),
  onStep: optional(callback),
};

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
  /** There where gradients overflowed in mixed precision: nothing was updated. */
  readonly skipped?: true;
}

/** The counted steps of one of the pairs, without and with 2BP. */
export interface PairSample {
  /** Which pair. */
  readonly pair: number;
  /** Its steps. */
  readonly steps: readonly [StepSample, StepSample];
}

/** Makes a pipeline with the stages on these ranks. */
export type MakePipeline = (placement: readonly number[]) => Pipeline;

/** A measurement under way, round by round. A pipeline serves the schedules of one placement. */
export interface Measurement {
  /** Number of placements. */
  readonly placements: number;
  /** Makes the pipeline of a placement, and takes each of its schedules' steps once, uncounted. */
  open(placement: number): Promise<void>;
  /** Takes the steps of each pair whose placement is open once. */
  round(): Promise<readonly PairSample[]>;
  /** Takes one step of a pair's schedule, without or with 2BP, as training would: the report does not know of it. Its placement is open. */
  step(pair: number, twoStage: boolean): Promise<StepSample>;
  /** Gives back the pipelines that are open. */
  close(): void;
  /** Whether memory is short for one more pipeline like those that are open. */
  isCrowded(): Promise<boolean>;
  /** What the rounds so far give. */
  report(): ThroughputReport;
}

/** What is measured on one placement. */
interface Group {
  readonly placement: readonly number[];
  /** Positions of its pairs. */
  readonly pairs: number[];
  /** While it is open. */
  pipeline?: Pipeline;
  /** Bytes that its pipeline holds between two steps, by rank. */
  held: readonly number[];
  /** The most bytes that a step of it took, all ranks together. */
  peak: number;
  link?: Transfer;
  /** What sums take, on virtual devices. */
  sums?: SumCosts;
}

/** The pairs by the placement that both their schedules have. */
function groupsOf(pairs: readonly MeasuredPair[]): Group[] {
  const groups = new Map<string, Group>();
  for (const [index, { base: { placement } }] of pairs.entries()) {
    const group: Group = groups.get(String(placement)) ?? { placement, pairs: [], held: [], peak: 0 };
    groups.set(String(placement), group);
    group.pairs.push(index);
  }
  return [...groups.values()];
}

/**
 * `measureThroughput` in the caller's rhythm, for measurements of several device sets in turn.
 *
 * @throws {UserError} As `measureThroughput`.
 */
export function startMeasurement(
  set: DeviceSet,
  pipeline: Pipeline | MakePipeline,
  options: MeasurementOptions,
): Measurement {
  expectFields("measureThroughput", options, rules);
  const { pairs, source, samples, transfer, exchange, onStep } = options;
  const isVirtual = set.mode === "virtual";
  const given = typeof pipeline === "function" ? undefined : pipeline;
  const make = typeof pipeline === "function" ? pipeline : () => pipeline;
  const devices = countDevices(set), replicas = given?.replicas ?? options.replicas ?? 1;
  if (devices % replicas !== 0) {
    throw new UserError(`measureThroughput: ${devices} devices cannot be ${replicas} replicas of as many each`);
  }
  const ranks = devices / replicas;
  checkPairs(pairs, ranks, given?.parts.length);
  if (isVirtual && !set.devices[0].gpu.info.timestamps) {
    throw new UserError(`${set.adapter} has no timestamps, which virtual devices are composed from`);
  }
  const groups = groupsOf(pairs);
  const measured: Measured[] = pairs.map(({ base, split }) => ({
    base: createRow(base),
    split: createRow(split),
    group: groups.find(({ placement }) => String(placement) === String(base.placement))!,
    warm: [],
    recompute: "none",
    sums: "i",
    summed: [],
  }));
  const bytes = () => ofAllDevices(set, set.devices.map(({ ledger }) => ledger.total()));
  const losses: number[][] = [];
  const unexplained: number[] = [], host: number[] = [];
  const turns: string[][] = [];
  let round = 0, skipped = 0;
  let about: Pick<ThroughputReport, "model" | "precision"> | undefined;

  /** Takes a step, for a row of the report if there is one. */
  async function step(
    schedule: Schedule,
    each: Measured,
    row?: Row,
    { candidates = [], stall }: Pick<MeasuredPair, "candidates" | "stall"> = {},
  ): Promise<StepSample> {
    const { group } = each;
    const batch = await source.next(samples * sizesOf(schedule).microbatches * replicas);
    if (row) collectGarbage();
    const others = (await bytes()).map((total, rank) => total - group.held[rank]);
    const result = await withCandidates(
      set.devices.map(({ gpu }) => gpu),
      candidates,
      () => group.pipeline!.step(schedule, batch, stall && !isVirtual ? { stall } : {}),
    );
    group.held = (await bytes()).map((total, rank) => total - others[rank]);
    if (row) (losses[round] ??= []).push(result.loss);
    onStep?.(result.loss);
    const { intervals, wallMs } = result;
    const peaks = result.peaks.map(({ total }, rank) => total - others[rank]);
    group.peak = Math.max(group.peak, peaks.reduce((sum, peak) => sum + peak, 0));
    if (row && round === 0) { // kernels are compiled and buffers made
      if (intervals) each.warm = intervals.flat().map(({ start, end }) => end - start);
      return { schedule, ms: NaN };
    }
    const perAction = isVirtual ? hostPerAction(intervals!, wallMs) : 0;
    const stageSums = result.sums && !isVirtual ? sumsOfStep(result.sums, each.group.placement.length) : undefined;
    const sums = stageSums ? { sum: stageSums } : group.sums;
    const replayed = (own: readonly (readonly Interval[])[]) => {
      const alone = withHostOverhead(replayCosts(schedule, own, group.link, each.after), perAction);
      const summed = sums ? withSums(alone, sums) : alone;
      return stall ? withStall(summed, stall.rank, stall.ms) : summed;
    };
    const simulated = intervals &&
      slowestOf(intervals, ranks, replayed, (costs) => simulate(schedule, costs).makespan);
    const stepMs = isVirtual ? simulated!.makespan : wallMs;
    const sample: StepSample = {
      schedule,
      ms: stepMs,
      ...(intervals ? { intervals, costs: simulated!.costs } : {}),
      ...(result.skipped ? { skipped: true } : {}),
    };
    if (!row) return sample;
    if (result.skipped) skipped++;
    const busy = intervals?.flat().reduce((sum, { start, end }) => sum + end - start, 0) ?? NaN;
    row.stepMs.push(stepMs);
    row.bubble.push(1 - busy / (devices * stepMs));
    peaks.forEach((total, rank) => row.peakBytes[rank] = Math.max(row.peakBytes[rank] ?? 0, total));
    for (const own of byReplica(intervals ?? [], ranks)) each.collector!.add(schedule, own);
    if (stageSums) each.summed.push(stageSums);
    unexplained.push(1 - (simulated?.makespan ?? NaN) / wallMs);
    host.push(perAction);
    return sample;
  }

  async function steps(index: number): Promise<PairSample> {
    const { base, split, candidates, stall } = pairs[index], each = measured[index];
    const first = await step(base, each, each.base, { candidates, stall });
    return { pair: index, steps: [first, await step(split, each, each.split, { candidates })] };
  }

  /** Makes the pipeline of a placement, takes its uncounted steps, and measures its messages. */
  async function warmUp(group: Group): Promise<void> {
    const held = await bytes(), before = given ? held.map(() => 0) : held;
    const { model, parts, recompute, sums, precision } = group.pipeline = make(group.placement);
    if (group.pipeline.replicas !== replicas) {
      throw new UserError(
        `measureThroughput: the pipeline has ${group.pipeline.replicas} replicas; give \`replicas\` as many`,
      );
    }
    group.held = (await bytes()).map((total, rank) => total - before[rank]);
    about ??= { model: { name: model.name, parameters: countParameters(model), ...model.configuration }, precision };
    round = 0;
    const after = updatesAfter(group.pipeline, ranks);
    for (const index of group.pairs) {
      const each = measured[index];
      each.after = after;
      each.collector = createCostCollector(parts.length, ranks, after);
      each.recompute = recompute;
      each.sums = sums;
      await steps(index);
    }
    const [first] = group.pairs;
    const warm = group.pairs.flatMap((index) => measured[index].warm);
    group.link = transfer;
    if (isVirtual) group.link ??= await measureLinks(set.devices[0], group.pipeline, pairs[first].base, samples, warm);
    if (isVirtual && replicas > 1) {
      group.sums = await measureSums(set.devices[0], group.pipeline, group.placement, warm, exchange);
    }
  }

  function closeGroup(group: Group): void {
    if (!given) group.pipeline?.close();
    group.pipeline = undefined;
  }

  return {
    placements: groups.length,
    async open(placement) {
      const group = groups[placement];
      const isFirst = groups.every(({ pipeline }) => !pipeline);
      try {
        await warmUp(group);
      } catch (error) {
        closeGroup(group);
        throw error;
      }
      const names = group.pairs.map((index) => pairs[index].base.name);
      if (isFirst) turns.push(names);
      else turns[turns.length - 1].push(...names);
    },
    async round() {
      round++;
      const samples: PairSample[] = [];
      for (const [index, { group }] of measured.entries()) if (group.pipeline) samples.push(await steps(index));
      return samples;
    },
    async step(pair, twoStage) {
      const { base, split, candidates, stall } = pairs[pair];
      return await step(twoStage ? split : base, measured[pair], undefined, {
        candidates,
        ...twoStage ? {} : { stall },
      });
    },
    close() {
      groups.forEach(closeGroup);
    },
    async isCrowded() {
      const open = groups.filter(({ pipeline }) => pipeline);
      // A GPU does not say what memory it has left; a software driver's is the machine's.
      const isCrowded = set.devices[0].gpu.info.software && open.some(({ peak }) => peak > freeMemory());
      return (await ofAllDevices(set, set.devices.map(() => isCrowded))).includes(true);
    },
    report() {
      const hasTimes = !unexplained.some(Number.isNaN);
      const costs = measured.map(({ collector, summed, group }) => {
        if (!hasTimes) return undefined;
        const sums = summed.length > 0 ? { sum: medianSums(summed) } : group.sums;
        return { ...collector!.costs(), ...sums ? { sums } : {} };
      });
      const messageMs = (rank: number) => Math.max(...groups.map(({ link }) => link?.(rank, rank + 1) ?? 0));
      return {
        schema: 1,
        mode: set.mode,
        devices,
        ...(replicas > 1 ? { replicas } : {}),
        adapter: set.adapter,
        ...transportOf(set),
        model: about!.model,
        samples,
        precision: about!.precision,
        rows: measured.flatMap(({ base, split, recompute, sums, group: { link } }, index) => {
          const parts = isVirtual ? { transfer: link, hostMs: median(host) } : {};
          const predicted = (schedule: Schedule, stall?: MeasuredPair["stall"]) =>
            predictStep(schedule, costs[index], { ...parts, stall });
          return [
            {
              ...finishRow(base, samples * replicas, recompute, "i", predicted(base.schedule, pairs[index].stall)),
              ...(split.schedule.policy ? {} : { joined: true as const }),
            },
            finishRow(split, samples * replicas, recompute, sums, predicted(split.schedule)),
          ];
        }),
        gains: pairs.map(({ base, split, stall }, index) => {
          const each = measured[index];
          const times = each.base.stepMs.map((time, at) => [time, each.split.stepMs[at]] as const);
          const gain = explainGain(base, split, times, costs[index], isVirtual ? each.group.link : undefined, stall);
          const on = {
            mode: set.mode,
            devices,
            adapter: set.adapter,
            replicas,
            ...transportOf(set),
            precision: about!.precision,
          };
          const predictedWithin = errorBar(gain.predicted, "gain", on);
          return { ...gain, ...(predictedWithin === undefined ? {} : { predictedWithin }) };
        }),
        unexplained: isVirtual || !hasTimes ? NaN : median(unexplained),
        ...(isVirtual
          ? {
            overheads: {
              hostMsPerAction: median(host),
              messageMs: Array.from({ length: ranks - 1 }, (_, rank) => messageMs(rank)),
              measured: !transfer,
            },
          }
          : {}),
        costs: Object.fromEntries(pairs.flatMap(({ base }, index) => costs[index] ? [[base.name, costs[index]]] : [])),
        ...(skipped > 0 ? { skipped } : {}),
        loss: { first: mean(losses[0]), last: mean(losses[losses.length - 1]) },
        ...(turns.length > 1 ? { apart: turns } : {}),
      };
    },
  };
}

/** One pair under way. */
interface Measured {
  readonly base: Row;
  readonly split: Row;
  readonly group: Group;
  /** Device times of the last uncounted step. */
  warm: readonly number[];
  /** What its pipeline recomputes. */
  recompute: string;
  /** Who makes its sums where a W is delayed. */
  sums: string;
  /** See {@link updatesAfter}; from when its pipeline is made, as the collector. */
  after?: readonly (readonly number[])[];
  /** What sums over replicas took in each counted step, by stage; empty on virtual devices. */
  readonly summed: number[][];
  collector?: CostCollector;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
