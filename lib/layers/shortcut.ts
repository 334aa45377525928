/** A connection around layers that may change the shape (He et al., arXiv 1512.03385). */
import { add } from "../ops/elementwise.ts";
import { addRelu, reluBackward } from "../ops/relu.ts";
import { empty, release, sizeOf, type Tensor } from "../tensor.ts";
import { addFlops, type Layer, sumShape } from "./layer.ts";

/**
 * `y = body(x) + x`, or `body(x) + projection(x)` where the body changes the shape. The parts keep under "body" and
 * "projection". With `relu`, y is `max(y, 0)`, made in the same pass over memory; what is kept for its I is y itself, which
 * the layer behind it often keeps anyway.
 */
export function shortcut(body: Layer, projection?: Layer, { relu = false }: { relu?: boolean } = {}): Layer {
  const parts = [["body", body], ...projection ? [["projection", projection] as const] : []] as const;
  const keepsGradient = parts.some(([, part]) => part.keepsGradient);
  return {
    parameters: parts.flatMap(([, part]) => part.parameters),
    buffers: parts.flatMap(([, part]) => part.buffers ?? []),
    sides: [...new Set(parts.flatMap(([, part]) => part.sides ?? []))],
    keepsInput: parts.some(([, part]) => part.keepsInput),
    keepsGradient: keepsGradient && !relu,
    outputShape: (shape) => sumShape(body.outputShape(shape), projection ? projection.outputShape(shape) : shape),
    flops(shape) {
      const sums = { f: sizeOf(body.outputShape(shape)), i: sizeOf(shape), w: 0 };
      return addFlops(...parts.map(([, part]) => part.flops(shape)), sums);
    },
    forward(y, x, saved) {
      const through = empty(x.device, y.shape, "workspace", y.dtype);
      body.forward(through, x, saved.child("body"));
      const around = projection && empty(x.device, y.shape, "workspace", y.dtype);
      projection?.forward(around!, x, saved.child("projection"));
      if (relu) {
        addRelu(y, through, around ?? x);
        saved.keep("y", y);
      } else add(y, through, around ?? x);
      release(through, around);
    },
    backwardInput(dx, dy, saved) {
      const gradient = (): Tensor | undefined => dx && empty(dx.device, dx.shape, "workspace", dx.dtype);
      let dsum = dy;
      if (relu) {
        dsum = keepsGradient
          ? saved.slot("dsum", dy.shape, "derivatives", dy.dtype)
          : empty(dy.device, dy.shape, "workspace", dy.dtype);
        reluBackward(dsum, dy, saved.get("y"));
        saved.drop("y");
      }
      const through = gradient();
      body.backwardInput(through, dsum, saved.child("body"));
      const around = projection && gradient();
      projection?.backwardInput(around, dsum, saved.child("projection"));
      if (dx) add(dx, through!, around ?? dsum);
      release(through, around);
      if (relu) release(dsum);
    },
    backwardWeight(saved) {
      for (const [name, part] of parts) part.backwardWeight?.(saved.map((each) => each.child(name)));
    },
  };
}
