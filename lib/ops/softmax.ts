/** Softmax over rows; for attention, over the positions that each row sees. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor, writeArray } from "../tensor.ts";
import type { AttentionMasks, AttentionShape } from "./attention_shape.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { rowOperation } from "./variants.ts";

/** What of a row counts: all of it, or with `causal` as many elements as its number in its square matrix says. */
type Seen = Pick<AttentionShape, "heads" | "causal">;

/** Makes each row of `x` [R, D] its softmax, in place: exp(x) over the row's sum of exp(x). */
export function softmax(x: Tensor): void {
  expectShape("softmax", "x", x, x.shape, "float");
  softmaxOperation.run([x, [], { heads: 1, causal: false }, {}]);
}

/** From `dy` [R, D], in place, the gradient with respect to the x of {@link softmax}; y [R, D] is what that has left. */
export function softmaxBackward(dy: Tensor, y: Tensor): void {
  expectShape("softmaxBackward", "dy", dy, y.shape, "float");
  expectShape("softmaxBackward", "y", y, dy.shape, "float");
  softmaxBackwardOperation.run([dy, [y], { heads: 1, causal: false }, {}]);
}

/** By variant, whole rows and padded ones. */
const softmaxKernels = (entry: string) => ({
  plain: kernel("softmax", entry),
  vec4: kernel("softmax_vec4", entry),
  group: kernel("softmax_group", entry),
});
type SoftmaxKernels = Record<"whole" | "padded", ReturnType<typeof softmaxKernels>>;

/** In place on the scores, or on the gradient of the probabilities, which then are the second view. */
function operation(name: string, kernels: SoftmaxKernels) {
  return rowOperation<[x: Tensor, views: readonly Tensor[], seen: Seen, masks: Pick<AttentionMasks, "lengths">]>({
    name,
    outputs: 1,
    rows: 0,
    record(variant, x, views, { heads, causal = true }, { lengths }) {
      const rows = rowsOf(x), length = widthOf(x);
      x.device.dispatch(
        kernels[lengths ? "padded" : "whole"][variant],
        { rows, length, heads, causal: Number(causal) },
        [x, ...views, ...lengths ? [lengths] : []],
        lanes(rows, variant === "group" ? 1 : 64),
      );
    },
    prepare([x, [probabilities], { heads, causal = true }, { lengths }]) {
      const length = widthOf(x);
      if (lengths) writeArray(lengths, new Uint32Array(rowsOf(x) / heads / length).fill(length));
      if (!probabilities) return;
      const size = sizeOf(x.shape); // 0 where nothing is seen, which not every variant looks at
      const seen = (i: number) => causal ? Math.floor(i / length) % length + 1 : length;
      writeArray(probabilities, Float32Array.from({ length: size }, (_, i) => i % length < seen(i) ? 1 / seen(i) : 0));
    },
  });
}

/** Over the rows of x, or those positions of square matrices of attention scores that are seen. */
export const softmaxOperation = operation("softmax", {
  whole: softmaxKernels("forward"),
  padded: softmaxKernels("forward_padded"),
});

/** Its backward: the gradient of the probabilities becomes that of the scores. */
export const softmaxBackwardOperation = operation("softmaxBackward", {
  whole: softmaxKernels("backward"),
  padded: softmaxKernels("backward_padded"),
});
