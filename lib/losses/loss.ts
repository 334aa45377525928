/** What a loss is: a number for the outputs of a model and what they should have been, and its gradient. */
import type { Saved } from "../layers/saved.ts";
import type { Tensor } from "../tensor.ts";

/** What a loss compares outputs with: each batch's targets are held against it before anything runs. */
export interface Targets {
  /** "u32" in a Uint32Array, "f32" in a Float32Array, whose numbers must be finite. */
  readonly type: "u32" | "f32";
  /** Axes, for all samples of the outputs together: as many numbers for each sample. */
  readonly shape: readonly number[];
  /** u32 targets are 0 to one less, as classes are; any u32 where it is left out. */
  readonly below?: number;
  /** A u32 target that does not count; where it is left out all do. */
  readonly ignored?: number;
}

/**
 * A loss: a description and two functions, without a tensor of its own, at the end of a model's last stage. What a step reports, and
 * what is differentiated, is the sum that `forward` writes over all micro-batches, divided by the number of targets
 * of the batch that count: the same however the batch is cut.
 *
 * Outputs are f32, or f16 in mixed precision; targets, the sum, and whatever is summed up for it are f32. As in a layer,
 * `saved` gives memory until the function returns, and keeps what the forward leaves to the backward; afterwards it is released.
 */
export interface Loss {
  /** For messages, "cross-entropy". */
  readonly name: string;
  /** Names of the side inputs that it reads besides those of the layers, see `Saved.side`; none by default. */
  readonly sides?: readonly string[];
  /**
   * What outputs of this shape are compared with.
   *
   * @throws {UserError} For a shape of outputs that it does not take.
   */
  targets(outputShape: readonly number[]): Targets;
  /** Writes `sum` [1], f32, what the micro-batch adds to the loss. `targets` is of the type and shape that {@link Loss.targets} says. */
  forward(sum: Tensor, outputs: Tensor, targets: Tensor, saved: Saved): void;
  /**
   * Writes `doutputs`, the gradient of the sum with respect to the outputs, times `scale` [1], f32: one over the targets that count,
   * and the loss scale of mixed precision. Comes after the forward of the same micro-batch, once.
   */
  backward(doutputs: Tensor, scale: Tensor, saved: Saved): void;
}
