import type { Action } from "../schedule.ts";

/** The weight gradients of one rank whose input gradients have run: for each stage its micro-batches, oldest first. */
export interface Pending {
  /** Notes that the I of a micro-batch has run. */
  add(stage: number, microbatch: number): void;
  /**
   * Takes out the next W of at most `width` micro-batches: of the stage that comes first, and of those the one that has waited
   * longest, among those with at least `least` pending. Undefined when there is none.
   */
  next(width: number, least?: number): Action | undefined;
  /** Stages that have any. */
  stages(): number[];
}

/**
 * Starts with nothing pending.
 *
 * @param order By stage which comes first, the least; all alike by default.
 */
export function pendingWeights(order?: ArrayLike<number>): Pending {
  // Taken ones stay in front of `head`: shifting an array of thousands for each W would dominate the whole filling.
  const queues = new Map<number, { microbatches: number[]; since: number[]; head: number }>();
  let now = 0;
  return {
    stages: () => [...queues].flatMap(([stage, { since, head }]) => since.length > head ? [stage] : []),
    add(stage, microbatch) {
      let queue = queues.get(stage);
      if (!queue) queues.set(stage, queue = { microbatches: [], since: [], head: 0 });
      queue.microbatches.push(microbatch);
      queue.since.push(now++);
    },
    next(width, least = 1) {
      let chosen = -1;
      let oldest = Infinity, first = Infinity;
      for (const [stage, { since, head }] of queues) {
        const own = order?.[stage] ?? 0;
        if (since.length - head < least || own > first || (own === first && !(since[head] < oldest))) continue;
        [chosen, oldest, first] = [stage, since[head], own];
      }
      if (chosen < 0) return undefined;
      const queue = queues.get(chosen)!;
      const microbatches = queue.microbatches.slice(queue.head, queue.head + width);
      queue.head += microbatches.length;
      return { kind: "W", stage: chosen, microbatches };
    },
  };
}
