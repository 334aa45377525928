/** What layers made of other layers have in common. */
import type { Category } from "../memory.ts";
import type { Tensor } from "../tensor.ts";
import { frozenPart } from "./frozen.ts";
import type { Layer, Reads } from "./layer.ts";
import type { Parameter } from "./parameter.ts";
import { backwardWeight, recompute } from "./run.ts";
import type { Saved } from "./saved.ts";
import { isRead, type Reading } from "./sums.ts";

/** What a composite says of itself; the rest follows from its parts. */
export interface Own extends
  Pick<
    Layer,
    "pieces" | "outputShape" | "flops" | "forward" | "backwardInput" | "recompute" | "freeze" | "withParts"
  > {
  /** Where x and dy are read, and side inputs besides those of the parts. */
  readonly reads: Reads;
  /** Parameters besides those of the parts. */
  readonly parameters?: readonly Parameter[];
  /** Adds the gradients of these. */
  backwardWeight?(saved: readonly Saved[]): void;
}

/**
 * A layer of `parts`, each of which keeps under its name (its index, in a list): parameters, state and side inputs are theirs, and so
 * are `recompute` and `backwardWeight`, in the order given. How x gets through them, and dy back, `own` says, with `saved.child(name)`
 * for each. Where it says how it is made of other parts, and has no parameters besides theirs, it can be frozen as they can.
 */
export function composed(parts: readonly Layer[] | Readonly<Record<string, Layer | undefined>>, own: Own): Layer {
  const named = Object.entries(parts).filter((part): part is [string, Layer] => part[1] !== undefined);
  const layers = named.map(([, layer]) => layer), recomputing = named.filter(([, layer]) => layer.recompute);
  const sides = [...layers, own].flatMap(({ reads }) => reads.sides ?? []);
  const { withParts, parameters = [] } = own;
  return {
    ...withParts && parameters.length === 0
      ? { freeze: (isFrozen) => withParts((part) => frozenPart(part, isFrozen)) }
      : {},
    ...recomputing.length > 0
      ? {
        recompute(saved: Saved) {
          for (const [name, layer] of recomputing) recompute(layer, saved.child(name));
        },
      }
      : {},
    ...own,
    parameters: [...layers.flatMap(({ parameters }) => parameters), ...parameters],
    buffers: layers.flatMap(({ buffers = [] }) => buffers),
    reads: { ...own.reads, sides: [...new Set(sides)] },
    backwardWeight(saved) {
      for (const [name, layer] of named) backwardWeight(layer, saved.map((each) => each.child(name)));
      own.backwardWeight?.(saved);
    },
  };
}

/**
 * Scratch for what lies between two parts, of a shape and type: in the micro-batch's slot of a slab where a W will read it, in memory
 * of its own otherwise.
 */
export function between(
  saved: Saved,
  name: string,
  { shape, dtype }: Pick<Tensor, "shape" | "dtype">,
  reading: Reading,
  category: Category,
): Tensor {
  return isRead(reading, saved.sums) ? saved.slot(name, shape, category, dtype) : saved.scratch(shape, dtype, category);
}
