/** What orders take, one after the other: without new memory for each, as local search looks at a great many. */
import { F, I, W } from "../program.ts";
import type { Order, Problem } from "./problem.ts";
import { tailsAfter } from "./remaining.ts";
import { makespanOf } from "./state.ts";

/** An action that the longest chain comes to from the action before it on the same rank. */
export interface Critical {
  readonly rank: number;
  /** Its place in the rank's list. */
  readonly at: number;
}

/** Prices orders of a problem. */
export interface Evaluator {
  /** The makespan of an order, or Infinity where it deadlocks. */
  makespan(order: Order): number;
  /** Where the longest chain of the order that was priced last goes along ranks. */
  critical(order: Order): Critical[];
}

/** An evaluator for a problem. */
export function evaluator(problem: Problem): Evaluator {
  const { devices, stages, microbatches: m, on, placement, source, sink, delay } = problem;
  const time = Float64Array.from(problem.time.flat());
  const remaining = tailsAfter(problem);
  const base = new Int32Array(devices + 1);
  for (let rank = 0; rank < devices; rank++) base[rank + 1] = base[rank] + 3 * m * on[rank].length;
  const ran = new Int32Array(2 * stages), over = new Float64Array(stages), lastOf = new Int32Array(stages);
  const ended = new Float64Array(2 * stages * m), madeBy = new Int32Array(2 * stages * m);
  const free = new Float64Array(devices), position = new Int32Array(devices);
  /** Of each place what its start waited for: another place, or -1. */
  const because = new Int32Array(base[devices]);
  /** Of each rank the port and the number of it that it is stopped at, as one number; -1 where it is not. */
  const stopped = new Int32Array(devices);
  const ready = new Int32Array(devices);
  return {
    makespan(order) {
      ran.fill(0);
      free.fill(0);
      position.fill(0);
      stopped.fill(-1);
      let waiting = devices;
      for (let rank = 0; rank < devices; rank++) ready[rank] = devices - 1 - rank;
      while (waiting > 0) {
        const rank = ready[--waiting], list = order[rank], first = base[rank];
        let at = position[rank], now = free[rank];
        for (; at < list.length; at++) {
          const code = list[at], stage = code >> 2, kind = code & 3, place = first + at;
          because[place] = at > 0 ? place - 1 : -1;
          if (kind === W) {
            now += time[code];
            over[stage] = now;
            lastOf[stage] = place;
            continue;
          }
          const port = 2 * stage + (kind === F ? 0 : I), k = ran[port], before = source[port];
          if (before >= 0) {
            const cell = before * m + k;
            if (ran[before] <= k) {
              stopped[rank] = cell;
              break;
            }
            const arrival = ended[cell] + delay[port];
            if (arrival > now) {
              now = arrival;
              because[place] = madeBy[cell];
            }
          }
          now += time[code];
          const own = port * m + k;
          ended[own] = now;
          madeBy[own] = place;
          ran[port] = k + 1;
          if (kind > W) {
            over[stage] = now;
            lastOf[stage] = place;
          }
          const to = sink[port];
          if (to < 0) continue;
          const other = placement[to >> 1];
          if (stopped[other] === own) {
            stopped[other] = -1;
            ready[waiting++] = other;
          }
        }
        position[rank] = at;
        free[rank] = now;
      }
      for (let rank = 0; rank < devices; rank++) if (position[rank] < order[rank].length) return Infinity;
      return makespanOf(problem, free, over);
    },
    critical(order) {
      // From the rank that ends last, or from the stage whose sum over replicas does.
      let rank = 0, place = -1, latest = -1;
      for (let r = 0; r < devices; r++) {
        if (free[r] + remaining[r] > latest) {
          [rank, latest, place] = [r, free[r] + remaining[r], base[r] + order[r].length - 1];
        }
      }
      for (let s = 0; s < stages; s++) {
        const end = over[s] + problem.sums[s] + remaining[placement[s]];
        if (end > latest) [rank, latest, place] = [placement[s], end, lastOf[s]];
      }
      const chain: Critical[] = [];
      while (place >= 0) {
        while (place < base[rank]) rank--;
        while (place >= base[rank + 1]) rank++;
        const before = because[place];
        if (before === place - 1 && before >= base[rank]) chain.push({ rank, at: place - base[rank] });
        place = before;
      }
      return chain;
    },
  };
}
