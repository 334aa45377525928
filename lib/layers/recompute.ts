/**
 * Recomputing instead of keeping: of the activations between F and I (Chen et al., arXiv 1604.06174), and of all that W reads
 * between I and W, intermediate-derivative checkpointing, which the 2BP paper (arXiv 2405.18047) names as further work.
 */
import { expectValue, oneOf } from "../rules.ts";
import type { DType } from "../tensor.ts";
import { composed } from "./composite.ts";
import { createGroup, releaseGroup } from "./group.ts";
import type { Flops, Layer } from "./layer.ts";
import { isTrained } from "./parameter.ts";
import { piecesOf } from "./past.ts";
import { backwardInput, backwardWeight, forward } from "./run.ts";
import type { Saved } from "./saved.ts";
import type { Reading } from "./sums.ts";

/**
 * What of a layer is recomputed. A micro-batch waits twice, for its I and then for its W, and each wait can be had cheaper:
 *
 * | | F | kept until I | I | kept until W | W |
 * | --- | --- | --- | --- | --- | --- |
 * | none | F | everything | I | what W reads | W |
 * | activations | F | x | F, I | what W reads | W |
 * | derivatives | F | everything | I | x, dy | F, I, W |
 * | both | F | x | F, I | x, dy | F, I, W |
 *
 * The W of "derivatives" runs F once more too. To keep the activations for it would gain nothing: what I gives back early, the inputs of
 * the functions without parameters, is as large as the derivatives that it leaves, those of the same tensors. In a full backward W
 * follows I at once: there "derivatives" is "none", and "both" is "activations".
 */
export type Recompute = "none" | "activations" | "derivatives" | "both";

/** Kinds of recomputation. */
export const recomputes: readonly Recompute[] = ["none", "activations", "derivatives", "both"];

/**
 * The same layer, which recomputes `what`; its parts keep under "layer". The numbers are the same bits: x and dy lie where
 * the layer's own W would read them, and functions that draw random numbers or keep statistics know that they are
 * recomputed. A layer without parameters, or that keeps nothing else than x and dy, is returned as it is. Where all are frozen
 * there is no W: "derivatives" is "none", and "both" is "activations".
 *
 * @throws {UserError} When `what` is none of {@link Recompute}.
 */
export function recomputed(layer: Layer, what: Recompute): Layer {
  expectValue("What a layer recomputes", what, oneOf(recomputes));
  if (what === "none" || layer.reads.nothingElse || layer.parameters.length === 0) return layer;
  if (!layer.parameters.some(isTrained) && what !== "activations") {
    return recomputed(layer, what === "both" ? "activations" : "none");
  }
  const inI = what !== "derivatives";
  /** Of each micro-batch on its way the type of y, and those of which what I reads has been recomputed ahead of it. */
  const types = new WeakMap<Saved, DType>(), ahead = new WeakSet<Saved>();
  /** Whether W recomputes. */
  const inW = ({ delayed }: Saved) => what !== "activations" && delayed;
  /** A W that recomputes I lets it make the sums: the option says nothing there. */
  const read = (reading: Reading): Reading => what === "activations" ? reading : reading === true;
  /** Slots in which no W reads: those of the micro-batch's own group would take memory for all of it at once. */
  const alone = ({ group }: Saved) => createGroup(group.placed, 1, { samples: group.samples });

  /** Runs the forward once more, for what it keeps; its result, which nobody reads, is of `dtype`. */
  function recomputeForward(saved: Saved, store: Saved, dtype: DType) {
    const x = saved.get("x");
    saved.run(() => forward(layer, saved.scratch(layer.outputShape(x.shape), dtype, "activations"), x, store));
  }

  /** Where I keeps, until it is done, what it recomputes, or an R ahead of it. */
  const storeOf = (saved: Saved) =>
    saved.child("layer", { recomputing: inI, unread: inI, ...inW(saved) ? { group: alone(saved) } : {} });

  const kept = composed({ layer }, {
    ...piecesOf(layer),
    reads: { ...layer.reads, input: read(layer.reads.input), gradient: read(layer.reads.gradient) },
    outputShape: (shape) => layer.outputShape(shape),
    flops: (shape) => withRecomputed(layer.flops(shape), what),
    forward(y, x, saved) {
      if (inI || inW(saved)) saved.keep("x", x);
      forward(layer, y, x, saved.child("layer", inI || inW(saved) ? { group: alone(saved) } : {}));
      if (inI) saved.dropChild("layer");
      types.set(saved, y.dtype);
    },
    backwardInput(dx, dy, saved) {
      const later = inW(saved), store = storeOf(saved);
      if (dx || !later) { // without dx only the derivatives are left to make, and those W will make
        if (inI && !ahead.delete(saved)) recomputeForward(saved, store, dy.dtype);
        backwardInput(layer, dx, dy, store);
      }
      if (later) {
        saved.dropChild("layer");
        saved.keep("dy", dy);
      } else if (inI) saved.drop("x");
    },
    ...inI
      ? {
        recompute(saved: Saved) {
          recomputeForward(saved, storeOf(saved), types.get(saved)!);
          ahead.add(saved);
        },
      }
      : {},
    withParts: (change) => recomputed(change(layer), what),
  });
  return {
    ...kept,
    backwardWeight(saved) {
      if (!inW(saved[0])) return kept.backwardWeight!(saved);
      // Once for all: these micro-batches' derivatives of this layer, and of no other at the same time.
      const { placed, samples } = saved[0].group;
      const group = createGroup(placed, saved.length, { delayed: false, samples });
      const stores = saved.map((each, index) => each.child("layer", { group, index, recomputing: true, unread: true }));
      for (const [index, each] of saved.entries()) {
        const dy = each.get("dy");
        recomputeForward(each, stores[index], dy.dtype);
        backwardInput(layer, undefined, dy, stores[index]);
      }
      backwardWeight(layer, stores);
      for (const each of saved) each.dropChild("layer");
      releaseGroup(group);
    },
  };
}

function withRecomputed({ f, i, w, b = i + w, recompute = f, sums }: Flops, what: Recompute): Flops {
  const [inI, inW] = [what !== "derivatives" ? recompute : 0, what !== "activations" ? recompute + i : 0];
  return {
    ...{ f, i: i + inI, w: w + inW, b: b + inI },
    ...sums && what === "activations" ? { sums } : {},
    ...inI > 0 ? { ahead: inI } : {},
  };
}
