import { expectValue } from "../../rules.ts";
import type { Action, Schedule } from "../schedule.ts";
import { type Costs, costsRule, delayOf, durationOf, endOf, tailOf, unitCosts } from "./costs.ts";
import { type Memory, peaksOf, unitMemory } from "./memory.ts";
import { expectSchedule } from "../check/sizes.ts";
import { lower, UPDATE } from "../program.ts";

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
  /** Busy time of each rank, its tail included. */
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
  expectSchedule(schedule);
  expectValue("simulate: costs", costs, costsRule);
  const program = lower(schedule, endOf(costs));
  const { devices, nodes, first, kind, rank, waits, from, order } = program;
  const { actions } = schedule, count = first[devices];
  const starts = new Float64Array(nodes), ends = new Float64Array(nodes);
  /** The node that the start of another waited for. */
  const because = new Int32Array(nodes).fill(-1);
  /** Of each rank the node that it ran last. */
  const latest = new Int32Array(devices).fill(-1);
  const busy: number[] = new Array(devices).fill(0);
  for (let at = 0; at < nodes; at++) {
    const node = order[at], own = rank[node];
    because[node] = latest[own];
    let start = latest[own] < 0 ? 0 : ends[latest[own]];
    for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
      const arrival = ends[from[edge]] + delayOf(program, edge, costs);
      if (arrival <= start) continue;
      start = arrival;
      because[node] = from[edge];
    }
    const duration = node < count
      ? durationOf(costs, actions[own][node - first[own]], own, node - first[own])
      : kind[node] === UPDATE
      ? tailOf(costs, own)
      : 0;
    starts[node] = start;
    ends[node] = start + duration;
    latest[own] = node;
    busy[own] += duration;
  }

  let last = latest[0]; // the update that is over last
  for (const node of latest) if (ends[node] > ends[last]) last = node;
  const makespan = ends[last];
  const total = busy.reduce((sum, time) => sum + time, 0);
  const bubbleRatio = makespan > 0 ? Math.max(0, 1 - total / (devices * makespan)) : 0;
  const own = busy.map((time, rank) => ({
    time,
    span: ends[latest[rank]] - (actions[rank].length > 0 ? starts[first[rank]] : 0),
  }));
  const longest = own.reduce((a, b) => b.span > a.span ? b : a);
  const steadyBubbleRatio = longest.span > 0 ? Math.max(0, 1 - longest.time / longest.span) : 0;

  // Only for who asks: for a million actions the objects take longer than the simulation.
  let spans: Span[] | undefined;
  const allSpans = (): Span[] =>
    spans ??= actions.flatMap((list, rank) =>
      list.map((action, index) => {
        const number = first[rank] + index;
        return { rank, index, action, start: starts[number], end: ends[number] };
      })
    );
  return {
    makespan,
    bubbleRatio,
    steadyBubbleRatio,
    busy,
    peak: peaksOf(schedule, memory),
    get spans() {
      return allSpans();
    },
    get criticalPath() {
      const path: Span[] = [];
      for (let node = last; node >= 0; node = because[node]) if (node < count) path.push(allSpans()[node]);
      return path.reverse();
    },
  };
}
