/** How far the clocks of ranks are apart, from the messages between them. */
import type { RankTrace } from "./rank_trace.ts";

/** A message as both ends saw it, in microseconds, each on its own clock. */
export interface Exchange {
  /** Rank that made it. */
  readonly from: number;
  /** Rank that needed it. */
  readonly to: number;
  /** When its maker had ended, on the clock of `from`. */
  readonly sent: number;
  /** When it can have been there at the latest, on the clock of `to`. */
  readonly arrived: number;
}

/** By rank how far its clock is ahead of rank 0's, in microseconds, and how far that may be wrong. */
export type Clocks = { ahead: number; error: number }[];

/**
 * No message arrives before it is sent: messages in both directions bound the difference of two clocks from both sides. Its middle is
 * the estimate, right where the fastest message of either direction takes as long. Ranks of one machine share a clock, and so are
 * not apart unless that contradicts the bounds. Ranks that exchange nothing are compared by way of others.
 */
export function clocksOf(traces: readonly RankTrace[], exchanges: readonly Exchange[]): Clocks {
  const bases = traces.map(({ base }) => (base - traces[0].base) / 1000);
  /** By pair the least time that a message seems to take. */
  const least = new Map<string, number>();
  for (const { from, to, sent, arrived } of exchanges) {
    const key = `${from} ${to}`, time = arrived + bases[to] - (sent + bases[from]);
    least.set(key, Math.min(least.get(key) ?? Infinity, time));
  }
  const clocks: ({ ahead: number; error: number } | undefined)[] = traces.map(() => undefined);
  clocks[0] = { ahead: 0, error: 0 };
  const open = new Set(traces.keys());
  // Nearest first, as in a shortest path: the one whose clock can be said best from those that are known.
  for (let at = 0; at < traces.length; at++) {
    const rank = [...open].reduce((best, each) => errorOf(clocks[each]) < errorOf(clocks[best]) ? each : best);
    open.delete(rank);
    const known = clocks[rank] ??= { ahead: 0, error: Infinity };
    for (const other of open) {
      const high = least.get(`${rank} ${other}`) ?? Infinity, low = -(least.get(`${other} ${rank}`) ?? Infinity);
      let apart: { ahead: number; error: number };
      const sharesClock = traces[rank].host !== undefined && traces[rank].host === traces[other].host;
      if (sharesClock && low <= 0 && high >= 0) apart = { ahead: 0, error: 0 };
      else if (low > -Infinity && high < Infinity) apart = { ahead: (low + high) / 2, error: Math.abs(high - low) / 2 };
      else if (high < Infinity) apart = { ahead: Math.min(0, high), error: Infinity };
      else if (low > -Infinity) apart = { ahead: Math.max(0, low), error: Infinity };
      else continue;
      const error = known.error + apart.error;
      if (error < errorOf(clocks[other]) || clocks[other] === undefined) {
        clocks[other] = { ahead: known.ahead + apart.ahead, error };
      }
    }
  }
  return clocks.map((clock) => clock ?? { ahead: 0, error: Infinity });
}

const errorOf = (clock: { error: number } | undefined) => clock?.error ?? Infinity;
