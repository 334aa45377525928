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
  const heap: { time: number; rank: number }[] = [];
  const before = (a: number, b: number) =>
    heap[a].time < heap[b].time || (heap[a].time === heap[b].time && heap[a].rank < heap[b].rank);
  const swap = (a: number, b: number) => [heap[a], heap[b]] = [heap[b], heap[a]];
  return {
    size: () => heap.length,
    push(time, rank) {
      let at = heap.push({ time, rank }) - 1;
      while (at > 0 && before(at, (at - 1) >> 1)) {
        swap(at, (at - 1) >> 1);
        at = (at - 1) >> 1;
      }
    },
    pop() {
      const top = heap[0];
      const last = heap.pop()!;
      if (heap.length === 0) return top;
      heap[0] = last;
      for (let at = 0;;) {
        let least = at;
        for (const child of [2 * at + 1, 2 * at + 2]) if (child < heap.length && before(child, least)) least = child;
        if (least === at) return top;
        swap(at, least);
        at = least;
      }
    },
  };
}
