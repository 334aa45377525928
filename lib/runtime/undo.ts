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
export async function undo(context: Context, marks: Marks, error: unknown): Promise<void> {
  const { ranks, condition } = context;
  await giveBack(context, marks);
  condition.gradients = condition.gradients === "zero" ? "zero" : "lost";
  try {
    ranks.forEach(clearGradients);
    await restoreState(context);
  } catch {
    condition.broken ??= reasonOf(error);
  }
}

/** The same for an evaluation that has failed, which has left gradients alone. */
export async function undoEvaluation(context: Context, marks: Marks, error: unknown): Promise<void> {
  await giveBack(context, marks);
  try {
    await restoreState(context);
  } catch {
    context.condition.broken ??= reasonOf(error);
  }
}

async function restoreState({ ranks }: Context): Promise<void> {
  for (const { stages } of ranks) for (const { buffers } of stages.values()) if (buffers) restoreBuffers(buffers);
  await Promise.all(ranks.map(({ device }) => device.idle())); // which submits
}

/** Forgets what the ranks have sent and recorded, and gives back the memory that was handed out since the marks. */
async function giveBack({ ranks }: Context, marks: Marks): Promise<void> {
  await Promise.all(ranks.map(({ transport }) => transport.recover()));
  for (const [at, { device }] of ranks.entries()) {
    device.abandon();
    device.pool.rollback(marks[at]);
    // What a step needed that did not fit is nothing to keep for the next, nor is what there was no memory for: such buffers, and
    // the bind groups with them, are invalid.
    device.releaseCaches();
  }
  await Promise.all(ranks.map(({ device }) => device.settle()));
}
