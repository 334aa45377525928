/** When parts can start at the soonest, and how much comes after them at least. */
import type { Precedence } from "./precedence.ts";

/** Of each part, see {@link Precedence}. */
export interface Windows {
  /** No order starts it sooner. */
  readonly heads: Float64Array;
  /** No order has less left when it ends. */
  readonly tails: Float64Array;
}

/** Works with windows of one problem. */
export interface Narrowing {
  /** Windows that hold for all orders. */
  readonly all: Windows;
  /** No order is shorter than this. */
  readonly bound: number;
  /** Narrows windows to those of orders of at most a makespan; says whether there may be any. */
  narrow(windows: Windows, makespan: number): boolean;
  /**
   * Narrows them further, by parts that cannot be in one end of their window (shaving, Martin and Shmoys): for each, it is claimed that
   * it is, and all that follows from that.
   *
   * Yields after every such claim, and says whether there may be orders of that makespan.
   */
  shave(windows: Windows, makespan: number): Generator<undefined, boolean>;
}

/** Above so many pairs of parts on the same rank, windows are those along the waits alone: the rest takes as many steps, again and again. */
const mostPairs = 1e7;
/** So many tails at most are tried for a rank's bound. */
const mostTails = 2000;
/** Looks at a rank again at most so often: what that brings gets less and less. */
const mostRounds = 60;
/** How much of a window is claimed to be where a part is, in one turn after the other. */
const shares = [0.5, 0.2];

/** A rank's parts, as it numbers them. */
interface Rank {
  readonly parts: Int32Array;
  readonly lengths: Float64Array;
  readonly heads: Float64Array;
  readonly tails: Float64Array;
  /** Its parts with growing heads, and with growing tails, as they were when they were last looked at. */
  readonly byHead: Int32Array;
  readonly byTail: Int32Array;
  /** By two parts, whether the first comes before the other: `first * parts + other`. */
  readonly before: Uint8Array;
  /** Room to work in. */
  readonly raised: Float64Array;
  readonly ends: Float64Array;
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
  const { length, order, first, from, lag, last } = precedence;
  const size = order.length;
  const lengths = Float64Array.from({ length: size }, (_, x) => length[Math.floor(x / microbatches)]);
  const isLarge = precedence.on.reduce((sum, { length: n }) => sum + n * n, 0) > mostPairs;
  const ranks = isLarge ? [] : precedence.on.map((parts) => rankOf(parts, lengths, precedence));
  const placed = new Int32Array(size);
  for (const [rank, { parts }] of ranks.entries()) for (const x of parts) placed[x] = rank;
  /** Ranks with parts whose windows have changed since they were looked at. */
  const dirty = new Uint8Array(ranks.length);

  /** Along the waits. */
  const along = ({ heads, tails }: Windows): void => {
    for (let i = 0; i < size; i++) {
      const x = order[i];
      let head = heads[x];
      for (let at = first[x]; at < first[x + 1]; at++) {
        const y = from[at], start = heads[y] + lengths[y] + lag[at];
        if (start > head) head = start;
      }
      if (head > heads[x] + slack) dirty[placed[x]] = 1;
      heads[x] = head;
    }
    for (let i = size - 1; i >= 0; i--) {
      const x = order[i], left = tails[x] + lengths[x];
      for (let at = first[x]; at < first[x + 1]; at++) {
        const y = from[at], tail = left + lag[at];
        if (tail <= tails[y]) continue;
        if (tail > tails[y] + slack) dirty[placed[y]] = 1;
        tails[y] = tail;
      }
    }
  };

  /** By what of the same rank comes before a part, or after it, and, for a makespan, by edges; undefined where that is refuted. */
  const within = (rank: Rank, windows: Windows, makespan: number): boolean | undefined => {
    const { parts, heads, tails, byHead, byTail } = rank, n = parts.length;
    for (let x = 0; x < n; x++) {
      heads[x] = windows.heads[parts[x]];
      tails[x] = windows.tails[parts[x]];
    }
    sort(byHead, heads);
    sort(byTail, tails);
    if (makespan < Infinity) {
      if (!findEdges(rank, heads, tails, byHead, byTail, makespan, slack)) return undefined;
      sort(byHead, heads);
      if (!findEdges(rank, tails, heads, byTail, byHead, makespan, slack)) return undefined;
      sort(byTail, tails);
    }
    raise(rank, heads, byHead, false);
    raise(rank, tails, byTail, true);
    let changed = false;
    for (let x = 0; x < n; x++) {
      const part = parts[x];
      if (heads[x] > windows.heads[part] + slack || tails[x] > windows.tails[part] + slack) changed = true;
      windows.heads[part] = heads[x];
      windows.tails[part] = tails[x];
    }
    return changed;
  };

  const all: Windows = { heads: new Float64Array(size), tails: last.slice() };
  for (let round = 0, changed = true; changed && round < mostRounds; round++) {
    along(all);
    changed = false;
    for (const rank of ranks) changed = within(rank, all, Infinity) || changed;
  }

  const spread = (windows: Windows, makespan: number): boolean => {
    const { heads, tails } = windows;
    for (let left = mostRounds * ranks.length; left > 0;) {
      along(windows);
      for (let x = 0; x < size; x++) if (heads[x] + lengths[x] + tails[x] > makespan + slack) return false;
      const before = left;
      for (let rank = 0; rank < ranks.length; rank++) {
        if (!dirty[rank]) continue;
        left--;
        const changed = within(ranks[rank], windows, makespan);
        if (changed === undefined) return false;
        dirty[rank] = changed ? 1 : 0;
      }
      if (left === before) return true;
    }
    return true;
  };
  const narrow = (windows: Windows, makespan: number): boolean => {
    dirty.fill(1);
    return spread(windows, makespan);
  };

  const trial = { heads: new Float64Array(size), tails: new Float64Array(size) };
  /** Whether there may be an order with one part in the earlier, or the later, so much of its window. */
  const mayBe = ({ heads, tails }: Windows, makespan: number, x: number, isEarly: boolean, by: number): boolean => {
    trial.heads.set(heads);
    trial.tails.set(tails);
    // Early, it ends as if more came after it.
    const [given, other] = isEarly ? [trial.tails, heads] : [trial.heads, tails];
    given[x] = Math.max(given[x], makespan - lengths[x] - other[x] - by);
    dirty.fill(0);
    dirty[placed[x]] = 1;
    return spread(trial, makespan);
  };

  return {
    all,
    bound: boundOf(all, lengths, precedence.on),
    narrow,
    *shave(windows, makespan) {
      const { heads, tails } = windows;
      for (let turn = isLarge ? shares.length : 0; turn < shares.length;) {
        let changed = false;
        for (const x of order) {
          for (const isEarly of [true, false]) {
            const room = makespan - lengths[x] - heads[x] - tails[x], by = shares[turn] * room;
            if (room <= slack) continue;
            yield undefined;
            if (mayBe(windows, makespan, x, isEarly, by)) continue;
            if (isEarly) heads[x] += by;
            else tails[x] += by;
            dirty.fill(0);
            dirty[placed[x]] = 1;
            if (!spread(windows, makespan)) return false;
            changed = true;
          }
        }
        if (!changed) turn++;
      }
      return true;
    },
  };
}

function rankOf(parts: Int32Array, all: Float64Array, { isBefore }: Precedence): Rank {
  const n = parts.length, before = new Uint8Array(n * n);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < n; b++) if (isBefore(parts[a], parts[b])) before[a * n + b] = 1;
  }
  const room = () => new Float64Array(n), places = () => Int32Array.from(parts, (_, at) => at);
  return {
    parts,
    lengths: Float64Array.from(parts, (x) => all[x]),
    heads: room(),
    tails: room(),
    byHead: places(),
    byTail: places(),
    before,
    raised: room(),
    ends: room(),
  };
}

/** Sorts what is nearly so already. */
function sort(places: Int32Array, by: Float64Array): void {
  for (let at = 1; at < places.length; at++) {
    const x = places[at], value = by[x];
    let to = at;
    for (; to > 0 && by[places[to - 1]] > value; to--) places[to] = places[to - 1];
    places[to] = x;
  }
}

/** Raises heads to when a rank can have run all that must come before, or tails by what must come after. */
function raise(
  { parts, lengths, before, raised }: Rank,
  starts: Float64Array,
  growing: Int32Array,
  isAfter: boolean,
): void {
  const n = parts.length;
  for (let x = 0; x < n; x++) {
    let sum = 0, best = starts[x];
    for (let at = n - 1; at >= 0; at--) {
      const y = growing[at];
      if (before[isAfter ? x * n + y : y * n + x] === 0) continue;
      sum += lengths[y];
      const end = starts[y] + sum;
      if (end > best) best = end;
    }
    raised[x] = best;
  }
  starts.set(raised);
}

/**
 * Edge finding for heads, or the other way round for tails, in n² (Baptiste, Le Pape and Nuijten, Constraint-Based Scheduling, 2001).
 *
 * @returns Whether there is time for each set of parts.
 */
function findEdges(
  { lengths, raised, ends }: Rank,
  starts: Float64Array,
  rests: Float64Array,
  byStart: Int32Array,
  byRest: Int32Array,
  makespan: number,
  slack: number,
): boolean {
  const n = lengths.length;
  raised.set(starts);
  let rest = NaN;
  for (let at = n - 1; at >= 0; at--) {
    if (rests[byRest[at]] === rest) continue;
    // The set of those that must end as early as this one.
    rest = rests[byRest[at]];
    const due = makespan - rest + slack;
    let sum = 0, end = -Infinity, most = -Infinity;
    for (let i = n - 1; i >= 0; i--) {
      const x = byStart[i];
      if (rests[x] >= rest) {
        sum += lengths[x];
        if (starts[x] + sum > end) end = starts[x] + sum;
      }
      ends[i] = end;
    }
    if (end > due) return false;
    for (let i = 0; i < n; i++) {
      const x = byStart[i], start = starts[x];
      if (rests[x] >= rest) {
        if (start + sum > most) most = start + sum;
        sum -= lengths[x];
      } else {
        if (start + sum + lengths[x] > due && ends[i] > raised[x]) raised[x] = ends[i];
        if (most + lengths[x] > due && end > raised[x]) raised[x] = end;
      }
    }
  }
  starts.set(raised);
  return true;
}

/** Jackson's bound of all ranks. */
function boundOf({ heads, tails }: Windows, lengths: Float64Array, on: readonly Int32Array[]): number {
  let bound = 0;
  for (let x = 0; x < lengths.length; x++) bound = Math.max(bound, heads[x] + lengths[x] + tails[x]);
  for (const parts of on) {
    const latest = parts.slice().sort((a, b) => heads[b] - heads[a]);
    const least = Float64Array.from(parts, (x) => tails[x]).sort();
    const step = Math.ceil(least.length / mostTails);
    for (let at = 0; at < least.length; at += step) {
      const tail = least[at];
      let sum = 0;
      for (const x of latest) {
        if (tails[x] < tail) continue;
        sum += lengths[x];
        if (heads[x] + sum + tail > bound) bound = heads[x] + sum + tail;
      }
    }
  }
  return bound;
}
