/** Takes back what a step has done that does not stand. */
import { reasonOf } from "../errors.ts";
import { restoreBuffers } from "../layers/buffers.ts";
import type { Context } from "./context.ts";
import { clearGradients } from "./finish.ts";
import type { Rank } from "./run.ts";

/** What was handed out on each rank's device before a step. */
export type Marks = readonly ReturnType<Rank["device"]["pool"]["mark"]>[];

/**
 * Ends a step that has failed before any parameter was updated: what it took goes back to the pools, its gradients become
 * zero, running statistics what they were. Where that cannot be done, because a device is lost, `error` is what the pipeline
 * says from then on.
 */
export async function undo({ ranks, condition }: Context, marks: Marks, error: unknown): Promise<void> {
  await Promise.all(ranks.map(({ transport }) => transport.recover()));
  for (const [at, { device }] of ranks.entries()) {
    device.abandon();
    device.pool.rollback(marks[at]);
    // What a step needed that did not fit is nothing to keep for the next.
    device.pool.trim();
  }
  await Promise.all(ranks.map(({ device }) => device.settle()));
  condition.gradients = condition.gradients === "zero" ? "zero" : "lost";
  try {
    for (const rank of ranks) {
      clearGradients(rank);
      for (const { buffers } of rank.stages.values()) if (buffers) restoreBuffers(buffers);
    }
    await Promise.all(ranks.map(({ device }) => device.idle())); // which submits
  } catch {
    condition.broken ??= reasonOf(error);
  }
}
