import { expectValue } from "../../rules.ts";
import type { Action, Schedule } from "../schedule.ts";
import { type Costs, costsRule, durationOf, tailsOf, transferOf, unitCosts, withTails } from "./costs.ts";
import { type Memory, peaksOf, unitMemory } from "./memory.ts";
import { checkSizes } from "../check/sizes.ts";
import { validate } from "../check/validate.ts";
import { walk } from "../check/walk.ts";

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
  checkSizes(schedule);
  expectValue("simulate: costs", costs, costsRule);
  const { devices, stages, microbatches, placement, actions } = schedule;
  const first = new Int32Array(devices + 1);
  for (let rank = 0; rank < devices; rank++) first[rank + 1] = first[rank] + actions[rank].length;
  const starts = new Float64Array(first[devices]);
  const ends = new Float64Array(first[devices]);
  /** The number of the action that an action's start waited for. */
  const because = new Int32Array(first[devices]).fill(-1);
  const maker = new Int32Array(2 * stages * microbatches).fill(-1);
  const free = new Float64Array(devices);
  const busy: number[] = new Array(devices).fill(0);
  const { isValid } = walk(schedule, (rank, index, action, source) => {
    const number = first[rank] + index;
    const { kind, stage } = action;
    let start = free[rank];
    if (index > 0) because[number] = number - 1;
    if (source >= 0) {
      const producer = maker[source];
      const from = placement[kind === "F" ? stage - 1 : stage + 1];
      const arrival = ends[producer] + transferOf(costs, from, rank, kind === "F" ? "F" : "I");
      if (arrival > start) {
        start = arrival;
        because[number] = producer;
      }
    }
    const duration = durationOf(costs, action, rank, index);
    starts[number] = start;
    ends[number] = free[rank] = start + duration;
    busy[rank] += duration;
    if (kind === "W") return;
    maker[(kind === "F" ? 0 : stages * microbatches) + stage * microbatches + action.microbatches[0]] = number;
  });
  if (!isValid) validate(schedule);

  const tails = tailsOf(costs, devices);
  const { done, awaited } = withTails(free, tails);
  tails.forEach(({ time }, rank) => busy[rank] += time);
  let last = 0;
  for (let rank = 1; rank < devices; rank++) if (done[rank] > done[last]) last = rank;
  const makespan = done[last];
  const total = busy.reduce((sum, time) => sum + time, 0);
  const bubbleRatio = makespan > 0 ? Math.max(0, 1 - total / (devices * makespan)) : 0;
  const own = busy.map((time, rank) => ({
    time,
    span: done[rank] - (actions[rank].length > 0 ? starts[first[rank]] : 0),
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
      const latest = actions[awaited[last]].length > 0 ? first[awaited[last] + 1] - 1 : -1;
      for (let number = latest; number >= 0; number = because[number]) path.push(allSpans()[number]);
      return path.reverse();
    },
  };
}
