/** Documents that share a sequence: scores of positions in another document are taken out. */
import { sizeOf, type Tensor, writeArray } from "../tensor.ts";
import type { AttentionShape } from "./attention_shape.ts";
import { expectShape, widthOf } from "./shapes.ts";
import { rowKernel, rowOperation } from "./variants.ts";

const hide = rowKernel("documents", "hide");

/** Far below every score that is finite, so that its power is 0. */
const lowest = { f32: -3.4e38, f16: -65_504 };

/**
 * Of the scores of causal attention, in place, those of positions before a row's document become the lowest number there is, or with
 * `gradient` 0. squares: [sequences, heads, length, length]; starts: u32 [sequences, length], where in the sequence the document of
 * each position starts. A position sees itself, whatever they say.
 */
export function hideDocuments(
  squares: Tensor,
  starts: Tensor,
  { sequences, heads, length }: Pick<AttentionShape, "sequences" | "heads" | "length">,
  gradient = false,
): void {
  expectShape("hideDocuments", "squares", squares, [sequences, heads, length, length], "float");
  expectShape("hideDocuments", "starts", starts, [sequences * length], "u32");
  operation.run([squares, starts, heads, gradient]);
}

const operation = rowOperation<[squares: Tensor, starts: Tensor, heads: number, gradient: boolean]>({
  name: "hideDocuments",
  outputs: 1,
  rows: 0,
  record(variant, squares, starts, heads, gradient) {
    const length = widthOf(squares), rows = sizeOf(squares.shape) / length;
    const { kernel, perLane, grid } = hide(squares.device, rows, length, variant);
    const value = gradient ? 0 : lowest[squares.dtype as "f32" | "f16"];
    squares.device.dispatch(
      kernel,
      { rows, width: length / perLane, length, heads, value },
      [squares, starts],
      grid,
    );
  },
  prepare([squares, starts]) {
    const length = widthOf(squares);
    // Documents of half a sequence.
    const half = Math.floor(length / 2);
    writeArray(starts, Uint32Array.from({ length: sizeOf(starts.shape) }, (_, i) => i % length < half ? 0 : half));
  },
});
