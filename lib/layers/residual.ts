/** A layer with a connection around it and a normalisation, before it (LLaMa, Mamba) or after it (BERT). */
import { add } from "../ops/elementwise.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { addFlops, type Layer, sumShape } from "./layer.ts";
import type { ResidualNorm } from "./rms_norm.ts";
import type { Saved } from "./saved.ts";

/** `y = x + inner(norm(x))`, shapes alike. Its parts keep under "norm" and "inner". */
export function preNorm(norm: ResidualNorm, inner: Layer): Layer {
  return {
    ...shared(norm, inner),
    outputShape: (shape) => sumShape(shape, inner.outputShape(norm.outputShape(shape))),
    flops: (shape) => addFlops(norm.flops(shape), inner.flops(shape)),
    keepsInput: norm.keepsInput,
    keepsGradient: inner.keepsGradient,
    forward(y, x, saved) {
      const normed = between(inner.keepsInput, saved, "normed", x, "activations");
      norm.forward(normed, x, saved.child("norm"));
      const result = empty(x.device, x.shape, "workspace", y.dtype);
      inner.forward(result, normed, saved.child("inner", { unread: saved.unread }));
      if (!saved.unread) add(y, x, result);
      release(normed, result);
    },
    backwardInput(dx, dy, saved) {
      const dnormed = between(norm.keepsGradient, saved, "dnormed", dy, "derivatives");
      inner.backwardInput(dnormed, dy, saved.child("inner"));
      norm.backwardInput(dx, dnormed, saved.child("norm"), dy);
      release(dnormed);
    },
  };
}

/** `y = norm(x + inner(x))`, shapes alike. Its parts keep under "inner" and "norm". */
export function postNorm(inner: Layer, norm: Layer): Layer {
  return {
    ...shared(norm, inner),
    outputShape: (shape) => norm.outputShape(sumShape(shape, inner.outputShape(shape))),
    flops: (shape) => addFlops(inner.flops(shape), norm.flops(shape)),
    keepsInput: inner.keepsInput,
    keepsGradient: norm.keepsGradient,
    forward(y, x, saved) {
      const result = empty(x.device, x.shape, "workspace", y.dtype);
      inner.forward(result, x, saved.child("inner"));
      const sum = between(norm.keepsInput, saved, "sum", x, "activations");
      add(sum, x, result);
      release(result);
      norm.forward(y, sum, saved.child("norm"));
      release(sum);
    },
    backwardInput(dx, dy, saved) {
      const dsum = between(inner.keepsGradient, saved, "dsum", dy, "derivatives");
      norm.backwardInput(dsum, dy, saved.child("norm"));
      const through = dx && empty(dy.device, dy.shape, "workspace", dy.dtype);
      inner.backwardInput(through, dsum, saved.child("inner"));
      if (dx) add(dx, dsum, through!);
      release(dsum, through);
    },
  };
}

/** What both have in common. */
function shared(norm: Layer, inner: Layer) {
  return {
    parameters: [...norm.parameters, ...inner.parameters],
    buffers: [...norm.buffers ?? [], ...inner.buffers ?? []],
    sides: [...new Set([...norm.sides ?? [], ...inner.sides ?? []])],
    backwardWeight(saved: readonly Saved[]) {
      norm.backwardWeight?.(saved.map((each) => each.child("norm")));
      inner.backwardWeight?.(saved.map((each) => each.child("inner")));
    },
  };
}

/** A tensor between the two, of the shape and type of one given: in the micro-batch's slot where a W reads it. */
function between(
  kept: boolean,
  saved: Saved,
  name: string,
  { shape, dtype }: Tensor,
  category: "activations" | "derivatives",
): Tensor {
  return kept ? saved.slot(name, shape, category, dtype) : empty(saved.device, shape, category, dtype);
}
