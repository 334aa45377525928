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
import type { Share } from "./shares.ts";
import type { SumUnderWay } from "./replica_sums.ts";
import type { Tie } from "./ties.ts";
import type { Transport } from "./transport.ts";

/** A rank of a pipeline: what it has, and its way to the others. */
export interface Rank {
  /** Its place in the pipeline, from 0. */
  readonly number: number;
  /** Of which copy of the pipeline it is, from 0. */
  readonly replica: number;
  /** The number that transports know it by, see `World`. */
  readonly peer: number;
  /** By replica the peer that has the same stages, its own among them: one where there are no others. */
  readonly replicas: readonly number[];
  /** What runs its work. */
  readonly device: Device;
  /** The whole model, as described. */
  readonly model: Model;
  /** Element type of activations and their gradients, and so of messages. */
  readonly dtype: "f32" | "f16";
  /** The stages that are placed here, by their numbers, in order. */
  readonly stages: ReadonlyMap<number, PlacedStage>;
  /** The tied parameters of the whole model. */
  readonly ties: readonly Tie[];
  /** By stage how the gradients of its blocks are added up over replicas; none where there is one replica. */
  readonly shares: ReadonlyMap<number, readonly Share[]>;
  /** One for each block of its parameters. */
  readonly optimizers: readonly Optimizer[];
  /** Of its passes; none where its device has no timestamps. */
  readonly timer: Timer | undefined;
  /** Its way to the other ranks. */
  readonly transport: Transport;
  /**
   * [1], where the last stage is, written anew in each step: one over the batch's targets that count, since the loss is the mean
   * over the batch whichever micro-batch a row is in, times the loss scale and the batch's share.
   */
  readonly lossGradient: Tensor | undefined;
  /** What its layers keep of a sequence that is made token by token. */
  readonly kept: KeptSequence;
}

/** Holds a rank up after each of its B: plain data, as all that a step is given. */
export interface Stall {
  /** Which rank. */
  readonly rank: number;
  /** For how long, in milliseconds, once its device has done all that it was given. */
  readonly ms: number;
}

/** The piece of a sequence that a pass is of: plain data. */
export interface Piece {
  /** Tokens before it. */
  readonly position: number;
  /** Tokens of the whole sequence at most. */
  readonly capacity: number;
  /** Whether the outputs are wanted: without, the pass is run for what layers keep alone. */
  readonly wanted: boolean;
}

/** What is kept on a rank's device; nothing while no sequence is made. */
export interface KeptSequence {
  /** The number of tokens before the piece, u32 [1]. */
  before?: Tensor;
  /** Of each layer that keeps something, by stage, path and name. */
  readonly tensors: Map<string, Tensor>;
}

/** What every rank is given of a step: plain data, which could come from another process. */
export interface StepInput {
  /** The schedule, lowered. */
  readonly program: Program;
  /** The whole batch, of which each replica has its share. */
  readonly batch: Batch;
  /** Shape of each stage's input for one micro-batch; last, that of the outputs. */
  readonly shapes: readonly (readonly number[])[];
  /** How many targets of the batch count: what the sum of the losses is divided by. */
  readonly targets: number;
  /** Whether parameters are updated at the end. */
  readonly optimize: boolean;
  /** What the learning rates are multiplied by; 1 by default. */
  readonly rate?: number;
  /** What the norm of all gradients is not to exceed in the update; nothing by default. */
  readonly clip?: number;
  /** What the batch's gradients are multiplied by; 1 by default. */
  readonly share?: number;
  /** Whether to record what is in use over time. */
  readonly timeline: boolean;
  /** Whether the model's outputs are read, in an evaluation; not by default. */
  readonly outputs?: boolean;
  /** Of a sequence that is made token by token, the piece that this is a forward of: it has no targets, and no loss. */
  readonly piece?: Piece;
  /** Whether a rank is held up after each of its full backwards. */
  readonly stall?: Stall;
  /** What the loss is multiplied by in mixed precision, and whether a smaller factor may help where gradients overflow. */
  readonly lossScale?: { readonly value: number; readonly canShrink: boolean };
}

/** A step under way on a rank. */
export interface Run extends StepInput {
  /** Whose part this is. */
  readonly rank: Rank;
  /** The replica's share of the batch. */
  readonly batch: Batch;
  /** How many samples of the whole batch come before that share. */
  readonly firstSample: number;
  /** When it began, on the host's clock. */
  readonly start: number;
  /** Sums over replicas that have begun. */
  readonly sums: SumUnderWay[];
  /**
   * Where the last stage is: one row for each micro-batch, as wide as a view's alignment; the sum of its rows' losses stands in the
   * first column.
   */
  readonly losses: Tensor | undefined;
  /** Forwards of the last stage that are recorded. */
  forwards: number;
  /** The sum of the losses, once all are on their way to the host. */
  lossSum?: Promise<number>;
  /** The reading of a micro-batch's outputs that is recorded and not yet submitted. */
  startedRead?: () => Promise<ArrayBuffer>;
  /** Where the last stage is and they are asked for, the outputs of each micro-batch, on their way to the host. */
  readonly outputsRead: Map<number, Promise<ArrayBuffer>>;
  /** What each micro-batch in flight keeps, by `stage * microbatches + microbatch`. */
  readonly saved: Map<number, Saved>;
  /** Groups in flight, by the W or B that ends them. */
  readonly groups: Map<number, Group>;
  /** Tensors on their way between two stages of this rank, by edge. */
  readonly handed: Map<number, Tensor>;
}
