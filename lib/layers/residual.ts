/** A layer with a connection around it and a normalisation, before it (LLaMa, Mamba) or after it (BERT). */
import { add } from "../ops/elementwise.ts";
import { between, composed } from "./composite.ts";
import { addFlops, type Layer, type ResidualNorm, sumShape } from "./layer.ts";
import { piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";

/** `y = x + inner(norm(x))`, shapes alike. Its parts keep under "norm" and "inner". */
export function preNorm(norm: ResidualNorm, inner: Layer): Layer {
  return composed({ norm, inner }, {
    ...piecesOf(norm, inner),
    reads: { input: norm.reads.input, gradient: inner.reads.gradient },
    outputShape: (shape) => sumShape(shape, inner.outputShape(norm.outputShape(shape))),
    flops: (shape) => addFlops(norm.flops(shape), inner.flops(shape)),
    forward(y, x, saved) {
      const normed = between(saved, "normed", x, inner.reads.input, "activations");
      forward(norm, normed, x, saved.child("norm"));
      const result = saved.scratch(x.shape, y.dtype);
      forward(inner, result, normed, saved.child("inner", { unread: saved.unread }));
      if (!saved.unread) add(y, x, result);
    },
    backwardInput(dx, dy, saved) {
      const dnormed = between(saved, "dnormed", dy, norm.reads.gradient, "derivatives");
      backwardInput(inner, dnormed, dy, saved.child("inner"));
      backwardInput(norm, dx, dnormed, saved.child("norm"), dy);
    },
    withParts: (change) => preNorm(change(norm), change(inner)),
  });
}

/** `y = norm(x + inner(x))`, shapes alike. Its parts keep under "inner" and "norm". */
export function postNorm(inner: Layer, norm: Layer): Layer {
  return composed({ norm, inner }, {
    ...piecesOf(norm, inner),
    reads: { input: inner.reads.input, gradient: norm.reads.gradient },
    outputShape: (shape) => norm.outputShape(sumShape(shape, inner.outputShape(shape))),
    flops: (shape) => addFlops(inner.flops(shape), norm.flops(shape)),
    forward(y, x, saved) {
      const result = saved.scratch(x.shape, y.dtype);
      forward(inner, result, x, saved.child("inner"));
      const sum = between(saved, "sum", x, norm.reads.input, "activations");
      add(sum, x, result);
      saved.release(result);
      forward(norm, y, sum, saved.child("norm"));
    },
    backwardInput(dx, dy, saved) {
      const dsum = between(saved, "dsum", dy, inner.reads.gradient, "derivatives");
      backwardInput(norm, dsum, dy, saved.child("norm"));
      const through = dx && saved.scratch(dy.shape, dy.dtype);
      backwardInput(inner, through, dsum, saved.child("inner"));
      if (dx) add(dx, dsum, through!);
    },
    withParts: (change) => postNorm(change(inner), change(norm)),
  });
}
