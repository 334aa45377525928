/** What a layer is: a forward pass and a backward pass in two halves (2BP, arXiv 2405.18047, section 3). */
import { UserError } from "../errors.ts";
import type { Tensor } from "../tensor.ts";
import type { StateBuffer } from "./buffers.ts";
import type { Parameter } from "./parameter.ts";
import type { Pieces } from "./past.ts";
import type { Saved } from "./saved.ts";
import type { Reading, Sums } from "./sums.ts";

/** Floating-point operations of a layer's three functions; a multiply and an add count as two. */
export interface Flops {
  /** Forward. */
  readonly f: number;
  /** Backward-p1, the input gradient. */
  readonly i: number;
  /** Backward-p2, the weight gradient. */
  readonly w: number;
  /** Full backward, where that is not I and W one after the other: what both recompute is recomputed once. */
  readonly b?: number;
  /** The part of `i`, and of `b`, that recomputes: what {@link Layer.recompute} runs ahead of them; none when absent. */
  readonly ahead?: number;
  /** A forward that is run only for what it keeps, where that is less than `f`: see `Saved.unread`. */
  readonly recompute?: number;
  /** The part of `i` that makes sums which only W reads, and what W takes where it makes them: see `Saved.sums`. */
  readonly sums?: { readonly i: number; readonly w: number };
}

/** The work of several parts, one after another: in a forward that recomputes, the last may be spared. */
export function addFlops(...parts: readonly Flops[]): Flops {
  let f = 0, i = 0, w = 0, b = 0, ahead = 0;
  const sums = { i: 0, w: 0 };
  for (const part of parts) {
    f += part.f;
    i += part.i;
    w += part.w;
    b += part.b ?? part.i + part.w;
    ahead += part.ahead ?? 0;
    sums.i += part.sums?.i ?? 0;
    sums.w += part.sums?.w ?? 0;
  }
  const { f: last, recompute = last } = parts[parts.length - 1];
  return {
    ...{ f, i, w },
    ...parts.some((part) => part.b !== undefined) ? { b } : {},
    ...parts.some((part) => part.sums) ? { sums } : {},
    ...ahead > 0 ? { ahead } : {},
    ...recompute < last ? { recompute: f - last + recompute } : {},
  };
}

/** The work of a layer whose sums are made there; those of a full backward are always made by its I. */
export function withSums(flops: Flops, sums: Sums): Flops {
  const { f, i, w, b = i + w, sums: part = { i: 0, w: 0 } } = flops;
  return sums === "i" ? flops : { ...flops, f, i: i - part.i, w: w + part.w, b };
}

/**
 * The shape of a sum of two tensors, a connection and what it goes around.
 *
 * @throws {UserError} When their shapes differ.
 */
export function sumShape(one: readonly number[], other: readonly number[]): readonly number[] {
  if (one.length !== other.length || one.some((axis, i) => axis !== other[i])) {
    throw new UserError(`A connection adds [${one}] and [${other}]; the two must have one shape`);
  }
  return one;
}

/**
 * What a layer asks of the shape of its input: numbers are lengths of axes, names stand for any, as in `["rows", 64]`.
 *
 * @throws {UserError} Names the layer, the shape and the right one.
 */
export function expectInput(layer: string, shape: readonly number[], right: readonly (string | number)[]): void {
  if (shape.length === right.length && right.every((axis, i) => typeof axis === "string" || axis === shape[i])) return;
  throw new UserError(`${layer} takes [${right.join(", ")}], and what comes before it makes [${shape.join(", ")}]`);
}

/** What the later functions of a layer read: what its neighbours, the pipeline and recomputation must know of it. */
export interface Reads {
  /**
   * Whether `backwardWeight` reads `x`, or "sums" where it does only if it makes the sums, see {@link Saved.sums}: then whoever makes
   * `x` puts it into a slot of the micro-batch's group.
   */
  readonly input?: Reading;
  /** The same for `dy`. */
  readonly gradient?: Reading;
  /** Whether x and dy are all that any of its functions leaves to another: then recomputing it would save nothing. */
  readonly nothingElse?: boolean;
  /** Names of the side inputs that it reads, "seed" or what the model describes, see {@link Saved.side}. */
  readonly sides?: readonly string[];
}

/**
 * A layer: a description and three functions, without a tensor of its own, so that it can be placed on any number of devices at once.
 * Activations are matrices [rows, width], where the rows are the tokens of all sequences of a micro-batch, or images [samples,
 * height, width, channels].
 *
 * The caller owns `x`, `y`, `dy` and `dx`; a layer that needs one later keeps a reference in `saved`, which also gives it memory for
 * the time of the call, and the tensors of its parameters and buffers. They are f32, or f16 in mixed precision: what a layer
 * makes for itself is of the type of y or dy, but statistics of rows and columns, and whatever is summed up for W, are f32. The
 * functions are called through `forward`, `backwardInput` and `backwardWeight` of layers/run.ts.
 */
export interface Layer {
  /** Its parameters, children's included. */
  readonly parameters: readonly Parameter[];
  /** State that the forward keeps up to date, children's included. */
  readonly buffers?: readonly StateBuffer[];
  /** What I and W read; `{}` where W reads neither x nor dy and nothing comes from the side. */
  readonly reads: Reads;
  /**
   * How it takes a sequence piece by piece, in `pipeline.generate()`, which refuses a model that has a layer without: "alone" where each
   * row of y follows from the same row of x and nothing else, in an evaluation; "past" where its forward sees to `Saved.past`.
   */
  readonly pieces?: Pieces;
  /** Shape of `y` for an `x` of this shape. */
  outputShape(inputShape: readonly number[]): readonly number[];
  /** Work for an `x` of this shape. */
  flops(inputShape: readonly number[]): Flops;
  /** Writes `y`. */
  forward(y: Tensor, x: Tensor, saved: Saved): void;
  /**
   * Backward-p1: writes `dx`, the gradient of the loss with respect to `x`, from `dy`, that with respect to `y`. Without
   * `dx` (first layer of stage 0) that work is skipped. Afterwards `saved` holds only what `backwardWeight` needs.
   */
  backwardInput(dx: Tensor | undefined, dy: Tensor, saved: Saved): void;
  /**
   * Runs what `backwardInput` of this micro-batch would recompute first, ahead of it: an R of the schedule. Absent where nothing is
   * recomputed.
   */
  recompute?(saved: Saved): void;
  /**
   * Backward-p2: adds the gradients with respect to the parameters of any number of micro-batches; scratch comes from the first.
   * Absent where there are no parameters, and not called where none is trained. The caller clears `saved` afterwards.
   */
  backwardWeight?(saved: readonly Saved[]): void;
  /**
   * The same layer, made anew with those of its parameters frozen whose name `isFrozen` says yes to, besides those that were: called by
   * `frozen`. It keeps nothing for their W, and its `reads` and `flops` say so. A layer without this can be frozen as a whole.
   */
  freeze?(isFrozen: (name: string) => boolean): Layer;
  /** Of a layer that is a projection, what others must know who put something beside it: see `lora`. */
  readonly projects?: Projects;
  /**
   * The same layer, made anew of the parts that `change` makes of its own; each must take and give the shapes of the part that it stands
   * for. Of layers made of others, down to which `loraModel` looks for projections.
   */
  withParts?(change: ChangePart): Layer;
}

/** Makes a part of another, of the same shapes; a {@link ResidualNorm} stays one. */
export type ChangePart = <Kind extends Layer>(part: Kind) => Kind;

/** A projection y = x W of [rows, inputs], or several of one x side by side in the columns of W. */
export interface Projects {
  /** Name of W's parameter. */
  readonly weight: string;
  /** Features of x. */
  readonly inputs: number;
  /** Whether W is stored [outputs, inputs]. */
  readonly transposed: boolean;
  /** The projections by name, in the order of their columns. */
  readonly parts: readonly ProjectionPart[];
}

/** One of the projections that are side by side in a weight. */
export interface ProjectionPart {
  /** Unique in a model, "blocks.0.attention.q" for example. */
  readonly name: string;
  /** Its columns. */
  readonly outputs: number;
}

/** A normalisation whose backward can add the gradient that flows around it. */
export interface ResidualNorm extends Layer {
  /** Tells it from layers that would leave `residual` out without a word. */
  readonly addsResidual: true;
  /** As {@link Layer.backwardInput}; with `residual`, dx = residual + the gradient, as pre-norm blocks need it. */
  backwardInput(dx: Tensor | undefined, dy: Tensor, saved: Saved, residual?: Tensor): void;
}
