import { expectValue } from "../../rules.ts";
import type { Action, Schedule } from "../schedule.ts";
import { type Costs, costsRule, costsTooLarge, delayOf, endOf, lengthOf, sumOf, tailOf, unitCosts } from "./costs.ts";
import { linesOf } from "./lines.ts";
import { type Memory, unitMemory } from "./memory.ts";
import { peaksOf } from "./peak_memory.ts";
import { expectSchedule } from "../check/sizes.ts";
import { lower, type Program, SUM } from "../program.ts";

/** One action with the times it ran at. */
export interface Span {
  /** Rank that ran it. */
  readonly rank: number;
  /** Position in the rank's list. */
  readonly index: number;
  /** What ran. */
  readonly action: Action;
  /** When it started, in the unit of the costs. */
  readonly start: number;
  /** When it ended. */
  readonly end: number;
}

/** The sum of a stage's gradients over the replicas of the pipeline, with the times it ran at. */
export interface SumSpan {
  /** Rank of the stage: the replicas are alike, so it is this rank of each. */
  readonly rank: number;
  /** Stage whose gradients were summed. */
  readonly stage: number;
  /** When it started, in the unit of the costs. */
  readonly start: number;
  /** When it ended. */
  readonly end: number;
}

/** What a schedule costs. */
export interface Simulation {
  /** From the first start to the end of the slowest rank, its tail included. */
  readonly makespan: number;
  /** Idle device time over devices x makespan. */
  readonly bubbleRatio: number;
  /**
   * The same with each rank's own clock: the idle share of the rank that takes longest from its first action to its
   * last, which is what is left when steps follow each other without a barrier. The zero-bubble papers count this way
   * (arXiv 2401.10241, section 5.4).
   */
  readonly steadyBubbleRatio: number;
  /** Every action, rank by rank, in the order of their lists. */
  readonly spans: readonly Span[];
  /** The sums over replicas, rank by rank in the order in which they ran; none where the costs have no `sum`. */
  readonly sums: readonly SumSpan[];
  /** Busy time of each rank, its tail included, and its sums over replicas not: they run beside its actions. */
  readonly busy: readonly number[];
  /** The chain of actions that sets the makespan, first to last: shorten one, and the step shortens. */
  readonly criticalPath: readonly Span[];
  /** Peak memory of each rank, in the unit of the memory model. */
  readonly peak: readonly number[];
}

/**
 * Runs a schedule on paper: every rank starts its next action as soon as it is free and what the action needs has
 * arrived. The same input gives the same output, bit for bit.
 *
 * @param costs Unit costs when absent.
 * @param memory One micro-batch's activations of a stage weigh 1 and its derivatives 1 when absent.
 * @throws {UserError} What `validate()` says of the schedule, and for a cost or an amount of memory that is none.
 *
 * @example
 * ```ts
 * import { generate, simulate, twoStage } from "twobp";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * console.log(simulate(schedule).makespan, simulate(twoStage(schedule)).makespan); // 21 15
 * ```
 */
export function simulate(schedule: Schedule, costs: Costs = unitCosts(), memory: Memory = unitMemory): Simulation {
  const program = priced(schedule, "simulate", costs);
  const { devices, first, nodes } = program, { actions } = schedule, count = first[devices];
  const { starts, ends, because, busy, makespan } = timesOf(program, costs);
  const total = busy.reduce((sum, time) => sum + time, 0);
  const bubbleRatio = makespan > 0 ? Math.max(0, 1 - total / (devices * makespan)) : 0;
  const own = busy.map((time, rank) => ({
    time,
    span: ends[nodes - devices + rank] - (actions[rank].length > 0 ? starts[first[rank]] : 0),
  }));
  const longest = own.reduce((a, b) => b.span > a.span ? b : a);
  const steadyBubbleRatio = longest.span > 0 ? Math.max(0, 1 - longest.time / longest.span) : 0;

  // Only for who asks: for a million actions the objects take longer than the simulation.
  let spans: Span[] | undefined;
  const allSpans = () => spans ??= spansOf(program, starts, ends);
  return {
    makespan,
    bubbleRatio,
    steadyBubbleRatio,
    busy,
    peak: peaksOf(program, memory),
    get spans() {
      return allSpans();
    },
    get sums() {
      return sumSpansOf(program, starts, ends);
    },
    get criticalPath() {
      const path: Span[] = [];
      // The updates are the last nodes; the first of those that are over last, and back from there.
      for (let node = ends.indexOf(makespan, nodes - devices); node >= 0; node = because[node]) {
        if (node < count) path.push(allSpans()[node]);
      }
      return path.reverse();
    },
  };
}

/** Lowers a schedule with the waits that the costs know of, for a function of that name. */
export function priced(schedule: Schedule, who: string, costs: Costs): Program {
  expectSchedule(schedule);
  expectValue(`${who}: costs`, costs, costsRule);
  return lower(schedule, endOf(costs, schedule));
}

/** When the nodes of a Program run. */
export interface Times {
  /** When each node starts. */
  readonly starts: Float64Array;
  /** When each node ends. */
  readonly ends: Float64Array;
  /** The node whose end, or message, the start of another waited for; -1 for nothing. */
  readonly because: Int32Array;
  /** Busy time of each rank. */
  readonly busy: readonly number[];
  /** When the last rank is done. */
  readonly makespan: number;
}

/**
 * Runs a Program on paper: {@link simulate} without what else is made of the times. What is not in its `order`, since it hangs,
 * starts at 0 and ends when that would take it.
 */
export function timesOf(program: Program, costs: Costs): Times {
  const { devices, nodes, kind, rank, waits, from, what, order } = program;
  const starts = new Float64Array(nodes), ends = lengthsOf(program, costs); // each length until its node has run
  const because = new Int32Array(nodes);
  /** Of each rank the node that it ran last, and the sum over replicas. */
  const latest = new Int32Array(devices).fill(-1), latestSum = new Int32Array(devices).fill(-1);
  const busy: number[] = new Array(devices).fill(0);
  const queued = linesOf(program, costs);
  for (let at = 0; at < order.length; at++) {
    const node = order[at], own = rank[node], isSum = kind[node] === SUM;
    const lane = isSum ? latestSum : latest, before = lane[own];
    let start = before < 0 ? 0 : ends[before];
    because[node] = before;
    for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
      const source = from[edge], left = queued ? queued.left(edge, ends[source]) : ends[source];
      const arrival = left + delayOf(costs, what[edge], rank[source], own);
      if (arrival <= start) continue;
      start = arrival;
      because[node] = source;
    }
    if (!isSum) busy[own] += ends[node];
    starts[node] = start;
    ends[node] += start;
    queued?.enter(node, ends[node]);
    lane[own] = node;
  }
  const makespan = latest.reduce((most, node) => node < 0 ? most : Math.max(most, ends[node]), 0);
  if (!(busy.reduce((sum, time) => sum + time, makespan) < Infinity)) {
    throw costsTooLarge();
  }
  return { starts, ends, because, busy, makespan };
}

/** How long each node takes. Asked rank by rank: in the order of time the actions are all over the memory. */
function lengthsOf(program: Program, costs: Costs): Float64Array {
  const { schedule: { actions }, devices, nodes, first, forwardOnly, rank: rankOf, stage } = program;
  const lengths = new Float64Array(nodes);
  for (let node = first[devices]; node < nodes - 2 * devices; node++) {
    lengths[node] = sumOf(costs, stage[node], rankOf[node]);
  }
  for (let rank = 0; rank < devices; rank++) {
    const list = actions[rank];
    for (let at = 0; at < list.length; at++) lengths[first[rank] + at] = lengthOf(costs, program, list[at], rank, at);
    if (!forwardOnly) lengths[nodes - devices + rank] = tailOf(costs, rank);
  }
  return lengths;
}

/** The actions of a Program with their times. */
export function spansOf(
  { schedule: { actions }, first }: Program,
  starts: ArrayLike<number>,
  ends: ArrayLike<number>,
): Span[] {
  return actions.flatMap((list, rank) =>
    list.map((action, index) => {
      const node = first[rank] + index;
      return { rank, index, action, start: starts[node], end: ends[node] };
    })
  );
}

/** The sums over replicas of a Program with their times. */
export function sumSpansOf(
  { first, devices, nodes, rank, stage }: Program,
  starts: ArrayLike<number>,
  ends: ArrayLike<number>,
): SumSpan[] {
  const count = first[devices];
  return Array.from({ length: nodes - 2 * devices - count }, (_, at) => {
    const node = count + at;
    return { rank: rank[node], stage: stage[node], start: starts[node], end: ends[node] };
  });
}
