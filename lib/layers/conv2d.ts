/** Two-dimensional convolution without a bias, as ResNets have it: the normalisation that follows brings one. */
import * as ops from "../ops/conv.ts";
import { type Window, windowedShape } from "../ops/windows.ts";
import { joinAdjacent, sizeOf } from "../tensor.ts";
import { expectInput, type Layer } from "./layer.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/**
 * Convolves images [samples, height, width, inputs] with a weight [size, size, inputs, outputs], which starts with normal numbers of
 * variance 2 / (size^2 * outputs) (He et al., arXiv 1502.01852, by what flows back; as torchvision). W reads x and dy, and
 * I makes nothing for it. Where a way of convolving lays patches out, W lays out its own: I's hold
 * the gradients of patches, and F's would take size^2 times the memory of x if they were kept.
 */
export function conv2d(
  name: string,
  inputs: number,
  outputs: number,
  { size, stride = 1, padding = (size - 1) / 2 }: Partial<Window> & Pick<Window, "size">,
  trainable: Trainable = true,
): Layer {
  const initial = { normal: Math.sqrt(2 / (size * size * outputs)) };
  const weight = parameter(`${name}.weight`, [size, size, inputs, outputs], initial, trainable);
  const trained = isTrained(weight);
  const window = { size, stride, padding };
  return {
    parameters: [weight],
    reads: { input: trained, gradient: trained, nothingElse: true },
    outputShape(shape) {
      expectInput(name, shape, ["samples", "height", "width", inputs]);
      return windowedShape(shape, window, outputs);
    },
    flops(shape) {
      const each = 2 * sizeOf(windowedShape(shape, window, outputs)) * size * size * inputs;
      return { f: each, i: each, w: trained ? each : 0, recompute: 0 };
    },
    forward(y, x, saved) {
      if (trained) saved.keep("x", x);
      if (saved.unread) return;
      ops.conv2d(y, x, saved.value(weight), window);
    },
    backwardInput(dx, dy, saved) {
      if (trained) saved.keep("dy", dy);
      if (dx) ops.conv2dBackwardInput(dx, dy, saved.value(weight), window);
    },
    backwardWeight(saved) {
      const gradient = saved[0].gradient(weight);
      for (const [x, dy] of joinAdjacent(saved.map((each) => [each.get("x"), each.get("dy")] as const))) {
        ops.conv2dBackwardWeight(gradient, dy, x, window);
      }
    },
    freeze: (isFrozen) => conv2d(name, inputs, outputs, window, butFrozen(trainable, isFrozen)),
  };
}
