import type { Action } from "./actions.ts";

/** The weight gradients of one rank whose input gradients have run: for each stage its micro-batches, oldest first. */
export interface Pending {
  /** Notes that the I of a micro-batch has run. */
  add(stage: number, microbatch: number): void;
  /**
   * Takes out the next W of at most `width` micro-batches: of the stage that has waited longest among those with at
   * least `least` pending. Undefined when there is none.
   */
  next(width: number, least?: number): Action | undefined;
}

/** Starts with nothing pending. */
export function pendingWeights(): Pending {
  const queues = new Map<number, { microbatch: number; order: number }[]>();
  let order = 0;
  return {
    add(stage, microbatch) {
      const queue = queues.get(stage) ?? [];
      queues.set(stage, queue);
      queue.push({ microbatch, order: order++ });
    },
    next(width, least = 1) {
      let oldest: number | undefined;
      for (const [stage, queue] of queues) {
        if (queue.length < Math.max(1, least)) continue;
        if (oldest === undefined || queue[0].order < queues.get(oldest)![0].order) oldest = stage;
      }
      if (oldest === undefined) return undefined;
      const taken = queues.get(oldest)!.splice(0, width);
      return { kind: "W", stage: oldest, microbatches: taken.map((entry) => entry.microbatch) };
    },
  };
}
