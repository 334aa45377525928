/** Trainable parameters: described by layers, given tensors by `placeLayers`. */
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

/** One trainable tensor, as a layer describes it: its tensors are in whatever it was placed in, see `Saved.value`. */
export interface Parameter {
  /** Unique in a model, for example "blocks.0.mlp.down.weight". */
  readonly name: string;
  /** Axes, outermost first; one axis for gains and biases. */
  readonly shape: readonly number[];
  /** What it holds before training. */
  readonly initial: Initial;
}

/** Describes a parameter. */
export function parameter(name: string, shape: readonly number[], initial: Initial): Parameter {
  return { name, shape, initial };
}
