/** Layers one after another. */
import { empty, release, type Tensor } from "../tensor.ts";
import { addFlops, type Layer } from "./layer.ts";
import type { Saved } from "./saved.ts";

/**
 * A chain of layers, itself a layer. A tensor between two layers lies in the micro-batch's slot of a slab where a W will read
 * it, in memory of its own otherwise.
 */
export function sequential(layers: readonly Layer[]): Layer {
  const last = layers.length - 1;
  /** Of each micro-batch on its way, the shape of every layer's input: that of the gradient its I will write. */
  const inputShapes = new WeakMap<Saved, (readonly number[])[]>();
  return {
    parameters: layers.flatMap((layer) => layer.parameters),
    buffers: layers.flatMap((layer) => layer.buffers ?? []),
    keepsInput: layers[0].keepsInput,
    keepsGradient: layers[last].keepsGradient,
    sides: [...new Set(layers.flatMap((layer) => layer.sides ?? []))],
    outputShape: (shape) => layers.reduce((current, layer) => layer.outputShape(current), shape),
    flops(shape) {
      return addFlops(...layers.map((layer, index) => layer.flops(shapeBefore(index, shape))));
    },
    forward(y, x, saved) {
      let input = x;
      inputShapes.set(saved, layers.map((_, index) => shapeBefore(index, x.shape)));
      for (const [index, layer] of layers.entries()) {
        const shape = layer.outputShape(input.shape);
        const output = index === last
          ? y
          : layers[index + 1].keepsInput
          ? saved.slot(`${index}.y`, shape, "activations", y.dtype)
          : empty(x.device, shape, "activations", y.dtype);
        layer.forward(output, input, saved.child(`${index}`, { unread: saved.unread && index === last }));
        if (index > 0) release(input);
        input = output;
      }
    },
    backwardInput(dx, dy, saved) {
      let gradient = dy;
      for (let index = last; index >= 0; index--) {
        const inputGradient = index === 0 ? dx : gradientFor(index);
        layers[index].backwardInput(inputGradient, gradient, saved.child(`${index}`));
        if (index < last) release(gradient);
        if (inputGradient) gradient = inputGradient;
      }
      function gradientFor(index: number): Tensor {
        const shape = inputShapes.get(saved)![index];
        return layers[index - 1].keepsGradient
          ? saved.slot(`${index}.dx`, shape, "derivatives", dy.dtype)
          : empty(dy.device, shape, "derivatives", dy.dtype);
      }
    },
    backwardWeight(saved) {
      for (const [index, layer] of layers.entries()) {
        layer.backwardWeight?.(saved.map((each) => each.child(`${index}`)));
      }
    },
  };
  function shapeBefore(index: number, shape: readonly number[]) {
    return layers.slice(0, index).reduce((current, layer) => layer.outputShape(current), shape);
  }
}
