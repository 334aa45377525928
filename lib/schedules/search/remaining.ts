/** The least time that is left from a state of the search on. */
import { F, I, W } from "../program.ts";
import { portOf, type Problem } from "./problem.ts";
import { arrivalOf, type State } from "./state.ts";

/** By rank the least time from the end of its last action, and of its sums over replicas, to the end of the step. */
export function tailsAfter({ tails }: Problem): number[] {
  const update = tails.map(({ time }, rank) =>
    tails.reduce((most, other) => other.together.includes(rank) ? Math.max(most, other.time) : most, time)
  );
  return tails.map((_, rank) =>
    tails.reduce(
      (most, { after }, other) =>
        after.reduce((most, { rank: r, delay }) => r === rank ? Math.max(most, delay + update[other]) : most, most),
      update[rank],
    )
  );
}

/** By stage the least time from the end of its last backward's gradient to the end of the step. */
export function timesAfterGradient(problem: Problem): number[] {
  const { placement, stages, gradient, backward, sums, sink, delay } = problem;
  const tails = tailsAfter(problem);
  const after = new Array<number>(stages).fill(0);
  for (const port of [...problem.sequence].reverse()) {
    if (!(port & 1)) continue;
    const s = port >> 1, to = sink[port];
    const own = backward[s] - gradient[s] + sums[s] + tails[placement[s]];
    after[s] = to < 0 ? own : Math.max(own, delay[to] + gradient[to >> 1] + after[to >> 1]);
  }
  return after;
}

/**
 * Bounds for branch and bound, which follow the state that they are made for.
 *
 * @param free When each rank is free.
 */
export function bounder(problem: Problem, state: State, free: readonly number[]) {
  const { stages, microbatches: m, placement, on, time, gradient, backward, sequence, source, delay, sums } = problem;
  const { ran } = state;
  const tails = tailsAfter(problem), after = timesAfterGradient(problem);
  /** Earliest starts of the next of each port, known or not: never later than they can really be. */
  const next = new Float64Array(2 * stages);
  const lengthOf = (port: number) => port & 1 ? gradient[port >> 1] : time[port >> 1][F];
  /** From the end of an F to the end of the gradient of the same micro-batch, at the soonest. */
  const below = new Float64Array(stages);
  for (const port of [...sequence].reverse()) {
    if (port & 1) continue;
    const s = port >> 1, to = problem.sink[port];
    const back = source[portOf(s, I)];
    // Where the next stage's gradient comes back, it has been there and the F of that stage before it.
    below[s] = gradient[s] +
      (to < 0 || back < 0 ? 0 : delay[to] + time[to >> 1][F] + below[to >> 1] + delay[portOf(s, I)]);
  }
  const bound = (): number => {
    for (const port of sequence) {
      const s = port >> 1, kind = port & 1, rank = placement[s], before = source[port];
      if (ran[3 * s + kind] >= m) {
        next[port] = Infinity;
        continue;
      }
      const known = arrivalOf(problem, state, 4 * s + kind);
      const input = known < Infinity ? known : next[before] + lengthOf(before) + delay[port];
      const own = kind === I && ran[3 * s + F] <= ran[3 * s + I] ? next[portOf(s, F)] + time[s][F] : 0;
      next[port] = Math.max(free[rank], input, own);
    }
    let most = 0;
    for (let rank = 0; rank < on.length; rank++) {
      const list = on[rank];
      let start = Infinity, pending = false, passing = 0, all = 0, up = -1, sum = Infinity;
      for (let at = 0; at < list.length; at++) {
        const s = list[at], f = m - ran[3 * s], i = m - ran[3 * s + 1], w = m - ran[3 * s + 2];
        const tf = time[s][F], ti = gradient[s], nextF = next[2 * s], nextI = next[2 * s + 1];
        start = Math.min(start, nextF, nextI);
        if (w > i) pending = true;
        passing += f * tf + i * ti;
        all += f * tf + i * backward[s] + (w - i) * time[s][W];
        if (f > 0) most = Math.max(most, nextF + f * tf + below[s] + after[s]);
        if (i > 0) {
          most = Math.max(most, nextI + i * ti + after[s]);
          if (up < 0) up = after[s]; // the first of the list that is left is the last to run an I
        }
        if (w > 0) sum = Math.min(sum, sums[s]);
        else most = Math.max(most, state.over[s] + sums[s] + tails[rank]);
      }
      if (all > 0) most = Math.max(most, (pending ? free[rank] : start) + all + sum + tails[rank]);
      else most = Math.max(most, free[rank] + tails[rank]);
      if (start < Infinity) most = Math.max(most, start + passing + up);
    }
    return most;
  };
  return { bound, nextOf: (port: number) => next[port] };
}
