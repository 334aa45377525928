/** Parameters: described by layers, given tensors by `placeLayers`. */
import type { Generator } from "../random.ts";

/**
 * How a parameter starts: drawn from a normal distribution of this deviation, or uniformly between minus and plus a bound; all
 * ones (gains) or all zeros (biases); or element by element from its index and the parameter's random numbers.
 */
export type Initial =
  | { readonly normal: number }
  | { readonly uniform: number }
  | "ones"
  | "zeros"
  | ((index: number, random: Generator) => number);

/** One tensor of weights, as a layer describes it: its tensors are in whatever it was placed in, see `Saved.value`. */
export interface Parameter {
  /** Unique in a model, for example "blocks.0.mlp.down.weight". */
  readonly name: string;
  /** Axes, outermost first; one axis for gains and biases. */
  readonly shape: readonly number[];
  /** What it holds before training. */
  readonly initial: Initial;
  /**
   * Whether it is trained; it is unless this is false. What is frozen has no gradient and no moments, and no W is made for it; in mixed
   * precision it is held in f16 alone, without an f32 master.
   */
  readonly trainable?: boolean;
  /** Of one of the two matrices that `lora` puts beside a projection: which, and beside what. */
  readonly adapts?: Adapts;
}

/** What a matrix of an adapter has to do with the weight that it is put beside: W + alpha / rank * A B, in W's columns. */
export interface Adapts {
  /** A [inputs, rank], or B [rank, outputs]. */
  readonly factor: "A" | "B";
  /** Name of the projection, "blocks.0.attention.q" for example. */
  readonly projection: string;
  /** Name of W's parameter. */
  readonly weight: string;
  /** Whether W is stored [outputs, inputs]. */
  readonly transposed: boolean;
  /** First of the projection's columns in W. */
  readonly start: number;
  /** Columns of A. */
  readonly rank: number;
  /** What A B is multiplied with, times the rank. */
  readonly alpha: number;
}

/** Which parameters of a layer are trained: all, none, or those whose name a function says yes to. */
export type Trainable = boolean | ((name: string) => boolean);

/** Describes a parameter, which is trained unless `trainable` says no. */
export function parameter(
  name: string,
  shape: readonly number[],
  initial: Initial,
  trainable: Trainable = true,
): Parameter {
  const isTrained = typeof trainable === "function" ? trainable(name) : trainable;
  return { name, shape, initial, ...isTrained ? {} : { trainable: false } };
}

/** Whether a parameter is trained. */
export function isTrained({ trainable = true }: Parameter): boolean {
  return trainable;
}

/** Those that were trained, but for the ones that `isFrozen` says yes to. */
export function butFrozen(trainable: Trainable, isFrozen: (name: string) => boolean): Trainable {
  return (name) => (typeof trainable === "function" ? trainable(name) : trainable) && !isFrozen(name);
}
