/** What the parts of the executor share: a pipeline's stages on their devices, and what its steps leave behind. */
import type { Device } from "../gpu/device.ts";
import type { Timer } from "../gpu/timing.ts";
import type { Model } from "../models/model.ts";
import type { Tensor } from "../tensor.ts";
import type { LossScale } from "../train/loss_scale.ts";
import type { Optimizer } from "../train/optimizers.ts";
import type { Channels } from "./channel.ts";
import type { Stage } from "./stage.ts";

/** What the executor works on; made by `createPipeline`. */
export interface ExecutorContext {
  readonly model: Model;
  readonly devices: readonly Device[];
  readonly stages: readonly Stage[];
  /** Of each rank. */
  readonly optimizers: readonly (readonly Optimizer[])[];
  readonly timers: readonly (Timer | undefined)[];
  readonly channels: Channels;
  /**
   * [1], on the last stage's device, written anew in each step: one over the batch's targets that count, since the loss is the mean
   * over the batch whichever micro-batch a row is in, times the loss scale.
   */
  readonly lossGradient: Tensor;
  /** In mixed precision; none in f32. */
  readonly lossScale?: LossScale;
  readonly condition: Condition;
}

/** What steps leave behind for those after them. */
export interface Condition {
  /** What the gradients are: zero, those of steps without an update, or such a sum that a failed step has cost. */
  gradients: "zero" | "summed" | "lost";
  /** Why no step can be run any more, if so. */
  broken?: string;
}

/** Says why nothing can be done with the pipeline any more, if so: a step broke it, or a device was lost, in a step or between two. */
export function expectUsable({ devices, condition }: Pick<ExecutorContext, "devices" | "condition">): void {
  const lost = devices.find(({ gpu }) => gpu.lost !== undefined);
  if (lost) condition.broken ??= `Rank ${lost.rank} (${lost.gpu.info.name}): ${lost.gpu.lost}`;
  const { broken } = condition;
  if (broken !== undefined) {
    throw new Error(`The pipeline cannot go on: ${broken}. Close it, open devices anew and load what was saved`);
  }
}

/** What is said of gradients that were added up over several steps, of which one has failed. */
export const lostGradients =
  "The gradients of the steps before were lost when a step failed: call clearGradients() and start the sum anew";
