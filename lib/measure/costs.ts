/** Costs of the actions of each stage, out of the device times of measured steps. */
import type { Interval } from "../gpu/timing.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { type Costs, sumOf, tailOf } from "../schedules/price/costs.ts";
import type { Action, Schedule } from "../schedules/schedule.ts";
import { median } from "./statistics.ts";

/** What one stage's actions take, in milliseconds of device time: medians over all that were measured. */
export interface MeasuredStage {
  /** Forward. */
  readonly f: number;
  /** Input gradient. */
  readonly i: number;
  /** Full backward. */
  readonly b: number;
  /** Weight gradient by the number of micro-batches it concatenates. */
  readonly w: Readonly<Record<number, number>>;
  /** What of I and of B recomputes, where an R has run ahead of them; it is part of `i` and `b`. */
  readonly r?: number;
}

/** Costs of a pipeline: each stage's actions, and each rank's end of the step. */
export interface MeasuredCosts {
  /** By stage. */
  readonly stages: readonly MeasuredStage[];
  /** By rank, with the look for gradients that are not finite; NaN where no optimizer ran. */
  readonly optimizer: readonly number[];
  /** By rank: the ranks whose tied gradients its optimizer step waits for; see {@link updatesAfter}. */
  readonly optimizerAfter?: readonly (readonly number[])[];
  /** What sums over replicas take; absent where there is one. */
  readonly sums?: SumCosts;
}

/** Collects durations step by step. */
export interface CostCollector {
  /** Enters a step's intervals, as `StepResult.intervals` gives them. */
  add(schedule: Schedule, intervals: readonly (readonly Interval[])[]): void;
  costs(): MeasuredCosts;
}

/**
 * By rank: the other ranks whose tied gradients its optimizer step waits for. Virtual steps price such a message as they price
 * an activation between neighbours, and as nothing between ranks that are none. Besides, every optimizer step waits until
 * all ranks have found their gradients finite, which goes without a message that counts.
 */
export function updatesAfter({ end }: Pick<Pipeline, "end">, devices: number): readonly (readonly number[])[] {
  return Array.from({ length: devices }, (_, rank) => end.reduceFrom?.(rank) ?? []);
}

/** A collector for pipelines of `stages` stages on `devices` ranks; `optimizerAfter` as {@link updatesAfter} says. */
export function createCostCollector(
  stages: number,
  devices: number,
  optimizerAfter?: readonly (readonly number[])[],
): CostCollector {
  const durations = new Map<string, number[]>();
  const enter = (key: string, { start, end }: Interval) => {
    const list = durations.get(key);
    if (list) list.push(end - start);
    else durations.set(key, [end - start]);
  };
  const of = (key: string) => median(durations.get(key) ?? []);
  return {
    add(schedule, intervals) {
      schedule.actions.forEach((actions, rank) => {
        const ahead = new Set<string>();
        actions.forEach((action, index) => {
          const { kind, stage, microbatches: [microbatch] } = action, cell = `${stage} ${microbatch}`;
          if (kind === "R") ahead.add(cell);
          const isShorter = (kind === "I" || kind === "B") && ahead.has(cell);
          enter(`${keyOf(action)}${isShorter ? " after R" : ""}`, intervals[rank][index]);
        });
        if (intervals[rank].length > actions.length + 1) {
          enter(`optimizer ${rank}`, endOf(intervals[rank], actions.length));
        }
      });
    },
    costs: () => ({
      stages: Array.from({ length: stages }, (_, stage) => {
        const w: Record<number, number> = {};
        for (const key of durations.keys()) {
          const [kind, of_, width] = key.split(" ");
          if (kind === "W" && Number(of_) === stage) w[Number(width)] = of(key);
        }
        const r = durations.has(`R ${stage} 1`) ? of(`R ${stage} 1`) : undefined;
        /** With all that it recomputes, whether that was measured in it or ahead of it. */
        const backward = (kind: "I" | "B") =>
          r === undefined || durations.has(`${kind} ${stage} 1`)
            ? of(`${kind} ${stage} 1`)
            : r + of(`${kind} ${stage} 1 after R`);
        const known = { f: of(`F ${stage} 1`), i: backward("I"), b: backward("B"), w };
        return r === undefined ? known : { ...known, r };
      }),
      optimizer: Array.from({ length: devices }, (_, rank) => of(`optimizer ${rank}`)),
      ...(optimizerAfter ? { optimizerAfter } : {}),
    }),
  };
}

/** The end of a rank's step after `count` actions, as if in one piece: the look at its gradients, and its optimizer. */
function endOf(intervals: readonly Interval[], count: number): Interval {
  return { start: 0, end: intervals.slice(count).reduce((sum, { start, end }) => sum + end - start, 0) };
}

const keyOf = ({ kind, stage, microbatches }: Action) => `${kind} ${stage} ${microbatches.length}`;

/** The time of a message between two ranks, in milliseconds. */
export type Transfer = (fromRank: number, toRank: number) => number;

/**
 * The measured costs for the simulator. A W costs what those of its width were measured at. With `batching: false` it
 * costs as much as the same number of single ones; where no single one was measured, that is what a full backward takes
 * beyond its I (nothing, where noise makes it less than its I).
 */
export function simulatorCosts(
  { stages, optimizer, optimizerAfter, sums }: MeasuredCosts,
  { batching = true, transfer = () => 0 }: { batching?: boolean; transfer?: Transfer } = {},
): Costs {
  const costs: Costs = {
    duration({ kind, stage, microbatches: { length } }) {
      const { f, i, b, w, r = 0 } = stages[stage];
      if (kind === "F") return f;
      if (kind === "R") return r;
      if (kind === "I") return i;
      if (kind === "B") return b;
      return batching ? w[length] : length * (w[1] ?? Math.max(0, b - i));
    },
    ahead: (stage) => stages[stage].r ?? 0,
    transfer,
    tail: (rank) => optimizer[rank] || 0,
    tailAfter: (rank) => optimizerAfter?.[rank] ?? [],
    tailTogether: true,
  };
  return sums ? withSums(costs, sums) : costs;
}

/** What the sums of a pipeline's replicas add to the costs of a step. Milliseconds. */
export interface SumCosts {
  /** By stage, from the end of its last W or B until the sum of its gradients is there. */
  readonly sum: readonly number[];
  /** By rank, what its updated parameters take to the other replicas after the step; nothing unless the optimizer is sharded. */
  readonly gather?: readonly number[];
}

/** Costs with these sums. */
export function withSums(costs: Costs, { sum, gather }: SumCosts): Costs {
  return {
    ...costs,
    sum: (stage, rank) => sumOf(costs, stage, rank) + (sum[stage] || 0),
    ...gather && { tail: (rank: number) => tailOf(costs, rank) + gather[rank] },
  };
}

/** The costs of one step as it ran: each action its own device time; `optimizerAfter` as {@link updatesAfter} says. */
export function replayCosts(
  schedule: Schedule,
  intervals: readonly (readonly Interval[])[],
  transfer: Transfer = () => 0,
  optimizerAfter?: readonly (readonly number[])[],
): Costs {
  return {
    duration: (_, rank, index) => intervals[rank][index].end - intervals[rank][index].start,
    transfer,
    tail: (rank) => endOf(intervals[rank], schedule.actions[rank].length).end,
    tailAfter: (rank) => optimizerAfter?.[rank] ?? [],
    tailTogether: true,
  };
}

/**
 * What the host takes for each action of a step whose ranks took turns on one GPU: the wall-clock time in which none of
 * the actions ran, shared among them. Milliseconds.
 */
export function hostPerAction(intervals: readonly (readonly Interval[])[], wallMs: number): number {
  const all = intervals.flat();
  const busy = all.reduce((sum, { start, end }) => sum + end - start, 0);
  return all.length ? Math.max(0, wallMs - busy) / all.length : 0;
}
