/** Takes back what a step has done that does not stand. */
import { reasonOf } from "../errors.ts";
import { restoreBuffers } from "../layers/buffers.ts";
import { fill } from "../ops/elementwise.ts";
import type { ExecutorContext } from "./context.ts";
import type { Stage } from "./stage.ts";

/** Records that all gradients of these stages are zero. */
export function clearGradients(stages: readonly Stage[]): void {
  for (const { placed: { blocks } } of stages) for (const { gradients } of blocks) fill(gradients, 0);
}

/**
 * Ends a step that has failed before any parameter was updated: what it took goes back to the pools, its gradients become
 * zero, running statistics what they were. Where that cannot be done, because a device is lost, `reason` is what the pipeline
 * says from then on.
 */
export async function undo(
  { devices, stages, channels, condition }: ExecutorContext,
  marks: readonly ReturnType<ExecutorContext["devices"][number]["pool"]["mark"]>[],
  error: unknown,
): Promise<void> {
  channels.reset();
  devices.forEach((device, rank) => {
    device.abandon();
    device.pool.rollback(marks[rank]);
    // What a step needed that did not fit is nothing to keep for the next.
    device.pool.trim();
  });
  await Promise.all(devices.map((device) => device.settle()));
  condition.gradients = condition.gradients === "zero" ? "zero" : "lost";
  try {
    clearGradients(stages);
    for (const { placed: { buffers } } of stages) if (buffers) restoreBuffers(buffers);
    await Promise.all(devices.map((device) => device.idle())); // which submits
  } catch {
    condition.broken ??= reasonOf(error);
  }
}
