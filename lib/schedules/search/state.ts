/** How far a search is, and what an order takes. */
import { B, F, I, W } from "../program.ts";
import { count } from "./amounts.ts";
import { codeOf, type Order, portOf, type Problem } from "./problem.ts";

/** How far the stages are. */
export interface State {
  /** How many F, I and W have run of each stage, a B being one I and one W: those of stage s from `3 * s` on. */
  readonly ran: Int32Array;
  /** When the k-th of each port ended: `ended[port * microbatches + k]`, right for those that have run. */
  readonly ended: Float64Array;
  /** When the last W or B of each stage ended, right for those that have run. */
  readonly over: Float64Array;
}

/** Where a search starts: nothing has run. */
export function nothingRun({ stages, microbatches }: Problem): State {
  return {
    ran: new Int32Array(3 * stages),
    ended: new Float64Array(2 * stages * microbatches),
    over: new Float64Array(stages),
  };
}

/** Enters an action that has run. */
export function enter({ microbatches }: Problem, { ran, ended, over }: State, code: number, end: number): void {
  const stage = code >> 2, kind = code & 3;
  if (kind !== W) ended[portOf(stage, kind) * microbatches + ran[3 * stage + (kind === F ? F : I)]] = end;
  if (kind === W || kind === B) over[stage] = end;
  count(ran, code, 1);
}

/** When what an action waits for on another stage has arrived: 0 where that is nothing, Infinity while nobody has made it. */
export function arrivalOf({ source, delay, microbatches }: Problem, { ran, ended }: State, code: number): number {
  const stage = code >> 2, kind = code & 3;
  if (kind === W) return 0;
  const port = portOf(stage, kind), before = source[port];
  if (before < 0) return 0;
  const k = ran[3 * stage + (kind === F ? F : I)];
  if (ran[3 * (before >> 1) + (before & 1)] <= k) return Infinity;
  return ended[before * microbatches + k] + delay[port];
}

/**
 * The makespan from when the last action of each rank ended, and the last of each stage.
 *
 * A rank's sums over replicas run beside its actions, in the order in which they can begin.
 */
export function makespanOf({ tails, on, sums }: Problem, ends: ArrayLike<number>, over: ArrayLike<number>): number {
  const own = tails.map((_, rank) => Math.max(ends[rank], laneEnd(on[rank], sums, over)));
  const summed = tails.map(({ after }, rank) =>
    after.reduce((latest, { rank: other, delay }) => Math.max(latest, own[other] + delay), own[rank])
  );
  return tails.reduce((most, { together, time }, rank) => {
    const start = together.reduce((latest, other) => Math.max(latest, summed[other]), summed[rank]);
    return Math.max(most, start + time);
  }, 0);
}

/** When the sums over replicas of some stages have run, one after the other as each can begin. */
function laneEnd(stages: readonly number[], sums: readonly number[], over: ArrayLike<number>): number {
  if (stages.length === 1) return over[stages[0]] + sums[stages[0]];
  let end = 0;
  for (const s of [...stages].sort((a, b) => over[a] - over[b])) end = Math.max(end, over[s]) + sums[s];
  return end;
}

/** Makespan of an order, or Infinity where it deadlocks. */
export function evaluate(problem: Problem, order: Order): number {
  const { devices, time, placement, sink } = problem;
  const state = nothingRun(problem);
  const free = new Float64Array(devices), position = new Int32Array(devices);
  const ready = order.map((_, rank) => devices - 1 - rank);
  while (ready.length > 0) {
    const rank = ready.pop()!, list = order[rank];
    while (position[rank] < list.length) {
      const code = list[position[rank]], arrival = arrivalOf(problem, state, code);
      if (arrival === Infinity) break;
      const end = Math.max(free[rank], arrival) + time[code >> 2][code & 3];
      free[rank] = end;
      enter(problem, state, code, end);
      position[rank]++;
      const waiting = (code & 3) === W ? -1 : sink[portOf(code >> 2, code & 3)];
      if (waiting < 0) continue;
      const other = placement[waiting >> 1], next = order[other][position[other]];
      // Only who waits for just this goes on.
      if (other !== rank && next >> 2 === waiting >> 1 && portOf(next >> 2, next & 3) === waiting && (next & 3) !== W) {
        ready.push(other);
      }
    }
  }
  for (let rank = 0; rank < devices; rank++) if (position[rank] < order[rank].length) return Infinity;
  return makespanOf(problem, free, state.over);
}

/** All that a stage can run. */
export function codesOf({ joins }: Problem, stage: number): number[] {
  return (joins[stage] ? [I, F, W, B] : [I, F, W]).map((kind) => codeOf(stage, kind));
}
