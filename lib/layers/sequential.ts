/** Layers one after another. */
import { between, composed } from "./composite.ts";
import { addFlops, type Layer } from "./layer.ts";
import { piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";
import type { Saved } from "./saved.ts";

/**
 * A chain of layers, itself a layer. A tensor between two layers lies in the micro-batch's slot of a slab where a W will read
 * it, in memory of its own otherwise.
 */
export function sequential(layers: readonly Layer[]): Layer {
  const last = layers.length - 1;
  /** Of each micro-batch on its way, the shape of every layer's input: that of the gradient its I will write. */
  const inputShapes = new WeakMap<Saved, (readonly number[])[]>();
  return composed(layers, {
    ...piecesOf(...layers),
    reads: { input: layers[0].reads.input, gradient: layers[last].reads.gradient },
    outputShape: (shape) => layers.reduce((current, layer) => layer.outputShape(current), shape),
    flops(shape) {
      return addFlops(...layers.map((layer, index) => layer.flops(shapeBefore(index, shape))));
    },
    forward(y, x, saved) {
      let input = x;
      inputShapes.set(saved, layers.map((_, index) => shapeBefore(index, x.shape)));
      for (const [index, layer] of layers.entries()) {
        const like = { shape: layer.outputShape(input.shape), dtype: y.dtype };
        const output = index === last
          ? y
          : between(saved, `${index}.y`, like, layers[index + 1].reads.input, "activations");
        forward(layer, output, input, saved.child(`${index}`, { unread: saved.unread && index === last }));
        if (index > 0) saved.release(input);
        input = output;
      }
    },
    backwardInput(dx, dy, saved) {
      let gradient = dy;
      for (let index = last; index >= 0; index--) {
        const like = { shape: inputShapes.get(saved)![index], dtype: dy.dtype };
        const inputGradient = index === 0
          ? dx
          : between(saved, `${index}.dx`, like, layers[index - 1].reads.gradient, "derivatives");
        backwardInput(layers[index], inputGradient, gradient, saved.child(`${index}`));
        if (index < last) saved.release(gradient);
        if (inputGradient) gradient = inputGradient;
      }
    },
    withParts: (change) => sequential(layers.map((layer) => change(layer))),
  });
  function shapeBefore(index: number, shape: readonly number[]) {
    return layers.slice(0, index).reduce((current, layer) => layer.outputShape(current), shape);
  }
}
