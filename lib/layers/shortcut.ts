/** A connection around layers that may change the shape (He et al., arXiv 1512.03385). */
import { add } from "../ops/elementwise.ts";
import { addRelu, reluBackward } from "../ops/relu.ts";
import { sizeOf } from "../tensor.ts";
import { between, composed } from "./composite.ts";
import { addFlops, type Layer, sumShape } from "./layer.ts";
import { piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";
import { either } from "./sums.ts";

/**
 * `y = body(x) + x`, or `body(x) + projection(x)` where the body changes the shape. The parts keep under "body" and
 * "projection". With `relu`, y is `max(y, 0)`, made in the same pass over memory; what is kept for its I is y itself, which
 * the layer behind it often keeps anyway.
 */
export function shortcut(body: Layer, projection?: Layer, { relu = false }: { relu?: boolean } = {}): Layer {
  const readsSum = either(body.reads.gradient, projection?.reads.gradient);
  return composed({ body, projection }, {
    ...piecesOf(body, ...projection ? [projection] : []),
    reads: { input: either(body.reads.input, projection?.reads.input), gradient: !relu && readsSum },
    outputShape: (shape) => sumShape(body.outputShape(shape), projection ? projection.outputShape(shape) : shape),
    flops(shape) {
      const sums = { f: sizeOf(body.outputShape(shape)), i: sizeOf(shape), w: 0 };
      return addFlops(body.flops(shape), ...projection ? [projection.flops(shape)] : [], sums);
    },
    forward(y, x, saved) {
      const through = saved.scratch(y.shape, y.dtype);
      forward(body, through, x, saved.child("body"));
      const around = projection ? saved.scratch(y.shape, y.dtype) : x;
      if (projection) forward(projection, around, x, saved.child("projection"));
      if (relu) {
        addRelu(y, through, around);
        saved.keep("y", y);
      } else add(y, through, around);
    },
    backwardInput(dx, dy, saved) {
      const gradient = () => dx && saved.scratch(dx.shape, dx.dtype);
      let dsum = dy;
      if (relu) {
        dsum = between(saved, "dsum", dy, readsSum, "derivatives");
        reluBackward(dsum, dy, saved.get("y"));
        saved.drop("y");
      }
      const through = gradient();
      backwardInput(body, through, dsum, saved.child("body"));
      const around = projection ? gradient() : dsum;
      if (projection) backwardInput(projection, around, dsum, saved.child("projection"));
      if (dx) add(dx, through!, around!);
    },
    withParts: (change) => shortcut(change(body), projection && change(projection), { relu }),
  });
}
