/** When parts can start at the soonest, and how much comes after them at least. */
import { type Precedence } from "./precedence.ts";

/** Of each part, see {@link Precedence}. */
export interface Windows {
  /** No order starts it sooner. */
  readonly heads: Float64Array;
  /** No order has less left when it ends. */
  readonly tails: Float64Array;
}

/** Rounds until nothing changes, or so many: what they bring gets less and less. */
const mostRounds = 60;

/** Works with windows of one problem. */
export interface Narrowing {
  /** The windows that hold for all orders. */
  readonly all: Windows;
  /** No order is shorter than this: see {@link narrowing}. */
  readonly bound: number;
  /** Narrows the windows to those of orders of at most such a makespan: false where there is none. */
  refutes(makespan: number): Generator<undefined, boolean>;
}

/**
 * Bounds by windows, narrowed until nothing changes. A part starts no sooner than what it waits for along each chain of waits, and no
 * sooner than its own rank can have run all that must come before it, none of which starts sooner than it can itself: a single
 * machine with heads. Tails are the same, seen from the end.
 *
 * The bound of a rank is that of a single machine with heads and tails which may stop and go on (Jackson's): the largest, over all
 * sets of its parts, of the least head, their times, and the least tail.
 *
 * For a makespan that is claimed to be possible, each part has to end in time for its tail. Where a set of parts has no time left for
 * another one before the last of them must end, that one comes after all of them (edge finding, Carlier and Pinson); and where it has
 * not even for themselves, the claim is refuted.
 *
 * @param slack Times closer than this are equal.
 */
export function narrowing(precedence: Precedence, microbatches: number, slack: number): Narrowing {
  const { length, order, first, from, lag, last, on, isBefore } = precedence;
  const size = order.length, m = microbatches;
  const lengths = Float64Array.from({ length: size }, (_, x) => length[Math.floor(x / m)]);
  /** Of each rank by two of its parts, as it numbers them: whether one comes before the other. */
  const before = on.map((parts) => {
    const table = new Uint8Array(parts.length ** 2);
    for (let a = 0; a < parts.length; a++) {
      for (let b = 0; b < parts.length; b++) if (isBefore(parts[a], parts[b])) table[a * parts.length + b] = 1;
    }
    return table;
  });

  /** Along the waits; says whether anything has changed. */
  const along = ({ heads, tails }: Windows): boolean => {
    let changed = false;
    for (const x of order) {
      let head = heads[x];
      for (let at = first[x]; at < first[x + 1]; at++) {
        head = Math.max(head, heads[from[at]] + lengths[from[at]] + lag[at]);
      }
      if (head > heads[x] + slack) changed = true;
      heads[x] = head;
    }
    for (let at = size - 1; at >= 0; at--) {
      const x = order[at], left = tails[x] + lengths[x];
      for (let at = first[x]; at < first[x + 1]; at++) {
        const y = from[at], tail = left + lag[at];
        if (tail > tails[y] + slack) changed = true;
        if (tail > tails[y]) tails[y] = tail;
      }
    }
    return changed;
  };

  /** By what of the same rank comes before a part, or after it. */
  const byRank = ({ heads, tails }: Windows): boolean => {
    let changed = false;
    for (const [rank, parts] of on.entries()) {
      const n = parts.length, table = before[rank];
      for (const [starts, isAfter] of [[heads, false], [tails, true]] as const) {
        const latest = Int32Array.from(parts, (_, at) => at).sort((a, b) => starts[parts[b]] - starts[parts[a]]);
        const raised = new Float64Array(n);
        for (let x = 0; x < n; x++) {
          let sum = 0, best = starts[parts[x]];
          for (const y of latest) {
            if (!table[isAfter ? x * n + y : y * n + x]) continue;
            sum += lengths[parts[y]];
            const end = starts[parts[y]] + sum;
            if (end > best) best = end;
          }
          raised[x] = best;
        }
        for (let x = 0; x < n; x++) {
          if (raised[x] > starts[parts[x]] + slack) changed = true;
          starts[parts[x]] = raised[x];
        }
      }
    }
    return changed;
  };

  /** Jackson's bound of all ranks. */
  const boundOf = ({ heads, tails }: Windows): number => {
    let bound = 0;
    for (let x = 0; x < size; x++) bound = Math.max(bound, heads[x] + lengths[x] + tails[x]);
    for (const parts of on) {
      const latest = parts.slice().sort((a, b) => heads[b] - heads[a]);
      for (const tail of Float64Array.from(parts, (x) => tails[x])) {
        let sum = 0;
        for (const x of latest) {
          if (tails[x] < tail) continue;
          sum += lengths[x];
          if (heads[x] + sum + tail > bound) bound = heads[x] + sum + tail;
        }
      }
    }
    return bound;
  };

  /**
   * Edge finding of one rank, in n² (Baptiste, Le Pape and Nuijten, Constraint-Based Scheduling, 2001).
   *
   * @returns Undefined where there is no time for a set of parts.
   */
  const edges = (
    parts: Int32Array,
    starts: Float64Array,
    rest: Float64Array,
    makespan: number,
  ): boolean | undefined => {
    const n = parts.length, sorted = parts.slice().sort((a, b) => starts[a] - starts[b]);
    const due = Float64Array.from(sorted, (x) => makespan - rest[x]);
    const raised = Float64Array.from(sorted, (x) => starts[x]);
    const ends = new Float64Array(n);
    let changed = false, lastDue = NaN;
    for (const limit of due.slice().sort()) {
      if (limit === lastDue) continue;
      lastDue = limit;
      let sum = 0, end = -Infinity, most = -Infinity;
      for (let i = n - 1; i >= 0; i--) {
        if (due[i] <= limit) {
          sum += lengths[sorted[i]];
          end = Math.max(end, starts[sorted[i]] + sum);
          if (end > limit + slack) return undefined;
        }
        ends[i] = end;
      }
      for (let i = 0; i < n; i++) {
        const start = starts[sorted[i]], own = lengths[sorted[i]];
        if (due[i] <= limit) {
          most = Math.max(most, start + sum);
          sum -= own;
        } else {
          if (start + sum + own > limit + slack && ends[i] > raised[i]) raised[i] = ends[i];
          if (most + own > limit + slack && end > raised[i]) raised[i] = end;
        }
      }
    }
    for (let i = 0; i < n; i++) {
      if (raised[i] <= starts[sorted[i]]) continue;
      if (raised[i] > starts[sorted[i]] + slack) changed = true;
      starts[sorted[i]] = raised[i];
    }
    return changed;
  };

  const all: Windows = { heads: new Float64Array(size), tails: last.slice() };
  for (let round = 0, changed = true; changed && round < mostRounds; round++) {
    changed = along(all);
    changed = byRank(all) || changed;
  }
  return {
    all,
    bound: boundOf(all),
    *refutes(makespan) {
      const windows = { heads: all.heads.slice(), tails: all.tails.slice() };
      for (let round = 0, changed = true; changed && round < mostRounds; round++) {
        changed = false;
        for (const parts of on) {
          for (const [starts, rest] of [[windows.heads, windows.tails], [windows.tails, windows.heads]] as const) {
            const found = edges(parts, starts, rest, makespan);
            if (found === undefined) return true;
            changed ||= found;
          }
          yield undefined;
        }
        if (!changed) return false;
        along(windows);
        byRank(windows);
        for (let x = 0; x < size; x++) {
          if (windows.heads[x] + lengths[x] + windows.tails[x] > makespan + slack) return true;
        }
      }
      return false;
    },
  };
}
