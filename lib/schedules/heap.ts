/** A queue of ranks by time; equal times leave in the order of the ranks, so that results do not depend on luck. */
export interface TimeQueue {
  /** Number of ranks waiting. */
  size(): number;
  /** Adds a rank. */
  push(time: number, rank: number): void;
  /** Takes out the earliest rank and its time. */
  pop(): { time: number; rank: number };
}

/** An empty queue, as a binary heap: both operations take logarithmic time. */
export function timeQueue(): TimeQueue {
  const times: number[] = [], ranks: number[] = [];
  const isBefore = (time: number, rank: number, at: number) =>
    time < times[at] || (time === times[at] && rank < ranks[at]);
  const put = (at: number, time: number, rank: number) => {
    times[at] = time;
    ranks[at] = rank;
  };
  return {
    size: () => times.length,
    push(time, rank) {
      let at = times.length;
      for (let above = (at - 1) >> 1; at > 0 && isBefore(time, rank, above); above = (at - 1) >> 1) {
        put(at, times[above], ranks[above]);
        at = above;
      }
      put(at, time, rank);
    },
    pop() {
      const top = { time: times[0], rank: ranks[0] };
      const time = times.pop()!, rank = ranks.pop()!, size = times.length;
      if (size === 0) return top;
      let at = 0;
      for (let below = 1; below < size; below = 2 * at + 1) {
        if (below + 1 < size && isBefore(times[below + 1], ranks[below + 1], below)) below++;
        if (isBefore(time, rank, below)) break;
        put(at, times[below], ranks[below]);
        at = below;
      }
      put(at, time, rank);
      return top;
    },
  };
}
