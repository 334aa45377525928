/** Running statistics of replicas: each moves its own, and at the end of a step all have the mean. */
import { scale } from "../ops/elementwise.ts";
import { empty, release } from "../tensor.ts";
import type { Rank } from "./run.ts";
import type { Reduction } from "./transport.ts";

/** Means under way. */
export interface MeanOfState {
  /** What is sent and waited for. */
  readonly parts: readonly Reduction[];
  /** Records that the state becomes the mean; to be submitted once all parts are there. */
  record(): void;
}

/** Begins the mean over replicas of the state of all stages of a rank; nothing where there is one replica, or no state. */
export function meanOfState({ device, stages, ties, replicas, transport }: Rank): MeanOfState {
  const blocks = replicas.length === 1
    ? []
    : [...stages].flatMap(([stage, { buffers }]) => buffers ? [{ stage, buffers }] : []);
  // Sums of tied gradients have the numbers before.
  const parts = blocks.map(({ stage, buffers }) => transport.reduce(replicas, ties.length + stage, buffers.values));
  return {
    parts,
    record() {
      for (const [at, { buffers: { values } }] of blocks.entries()) {
        parts[at].record();
        const mean = empty(device, values.shape, "workspace");
        scale(mean, values, 1 / replicas.length);
        device.copy(mean.storage.buffer, mean.offset, values.storage.buffer, values.offset, values.bytes);
        release(mean);
      }
    },
  };
}
