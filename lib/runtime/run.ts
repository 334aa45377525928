/** A step under way on one rank: what the rank has, what it is given, and where it stands. */
import type { Device } from "../gpu/device.ts";
import type { Timer } from "../gpu/timing.ts";
import type { Group } from "../layers/group.ts";
import type { Saved } from "../layers/saved.ts";
import type { Model } from "../models/model.ts";
import type { Program } from "../schedules/program.ts";
import type { Tensor } from "../tensor.ts";
import type { Batch } from "../train/data.ts";
import type { Optimizer } from "../train/optimizers.ts";
import type { PlacedStage } from "./placed.ts";
import type { Tie } from "./ties.ts";
import type { Transport } from "./transport.ts";

/** A rank. */
export interface Rank {
  readonly number: number;
  readonly device: Device;
  readonly model: Model;
  /** Element type of activations and their gradients, and so of messages. */
  readonly dtype: "f32" | "f16";
  /** The stages that are placed here, by their numbers, in order. */
  readonly stages: ReadonlyMap<number, PlacedStage>;
  /** The tied parameters of the whole model. */
  readonly ties: readonly Tie[];
  readonly optimizers: readonly Optimizer[];
  readonly timer: Timer | undefined;
  readonly transport: Transport;
  /**
   * [1], where the last stage is, written anew in each step: one over the batch's targets that count, since the loss is the mean
   * over the batch whichever micro-batch a row is in, times the loss scale.
   */
  readonly lossGradient: Tensor | undefined;
}

/** What every rank is given of a step: plain data, which could come from another process. */
export interface StepInput {
  readonly program: Program;
  readonly batch: Batch;
  /** Shape of each stage's input for one micro-batch; last, that of the logits. */
  readonly shapes: readonly (readonly number[])[];
  /** Those of the batch that count. */
  readonly targets: number;
  readonly optimize: boolean;
  readonly timeline: boolean;
  /** What the loss is multiplied by in mixed precision, and whether a smaller factor may help where gradients overflow. */
  readonly lossScale?: { readonly value: number; readonly canShrink: boolean };
}

/** A step under way on a rank. */
export interface Run extends StepInput {
  readonly rank: Rank;
  /**
   * Where the last stage is: one row for each micro-batch, as wide as a view's alignment; the sum of its rows' losses stands in the
   * first column.
   */
  readonly losses: Tensor | undefined;
  /** Forwards of the last stage that are recorded. */
  forwards: number;
  /** The sum of the losses, once all are on their way to the host. */
  lossSum?: Promise<number>;
  /** What each micro-batch in flight keeps, by `stage * microbatches + microbatch`. */
  readonly saved: Map<number, Saved>;
  /** Groups in flight, by the W or B that ends them. */
  readonly groups: Map<number, Group>;
  /** Tensors on their way between two stages of this rank, by edge. */
  readonly handed: Map<number, Tensor>;
}
