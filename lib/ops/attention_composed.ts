/** Attention as batched multiplications with a softmax between them; the probabilities are kept from F to I. */
import { empty, release, type Tensor } from "../tensor.ts";
import { type AttentionShape, type AttentionWay, qkvWidth } from "./attention_shape.ts";
import { hideDocuments } from "./documents.ts";
import { dropout, type DropoutMask } from "./dropout.ts";
import { matmulBatched, type MatmulOptions, type Matrices } from "./matmul.ts";
import { softmaxBackwardOperation, softmaxOperation } from "./softmax.ts";

/** Keeps the probabilities [sequences, heads, length, length] before dropout, 0 where a position is not seen. */
export const composed: AttentionWay = {
  name: "composed",
  supports: () => true,
  keeps: ({ sequences, heads, length }, dtype) => ({
    name: "probabilities",
    shape: [sequences, heads, length, length],
    dtype,
  }),

  forward(out, probabilities, qkv, shape, masks) {
    const { q, k, v } = partsOf(qkv, shape);
    const scale = 1 / Math.sqrt(shape.headSize);
    const squares = squaresOf(probabilities, shape);
    multiply(shape, squares, q, k, { transposeB: true, scale });
    if (masks.starts) hideDocuments(probabilities, masks.starts, shape);
    softmaxOperation.run([probabilities, [], shape, masks]);
    const dropped = masks.dropout && drop(probabilities, masks.dropout, shape);
    multiply(shape, headsOf(out, shape), dropped ? squaresOf(dropped, shape) : squares, v);
    release(dropped);
  },

  backward(dqkv, dout, _out, qkv, probabilities, shape, masks) {
    const scale = 1 / Math.sqrt(shape.headSize);
    const dheads = headsOf(dout, shape);
    const { q, k, v } = partsOf(qkv, shape), { q: dq, k: dk, v: dv } = partsOf(dqkv, shape);
    const dropped = masks.dropout && drop(probabilities, masks.dropout, shape);
    multiplyShared(shape, dv, squaresOf(dropped ?? probabilities, shape), dheads, 1);
    release(dropped);
    const scratch = empty(dqkv.device, probabilities.shape, "workspace", probabilities.dtype);
    multiply(shape, squaresOf(scratch, shape), dheads, v, { transposeB: true });
    const gradient = masks.dropout ? drop(scratch, masks.dropout, shape) : scratch;
    // Where nothing is seen the product may be infinite, and 0 times that no number.
    if (masks.starts) hideDocuments(gradient, masks.starts, shape, true);
    softmaxBackwardOperation.run([gradient, [probabilities], shape, masks]);
    const dsquares = squaresOf(gradient, shape);
    multiply(shape, dq, dsquares, k, { scale });
    multiplyShared(shape, dk, dsquares, q, scale);
    if (gradient !== scratch) release(gradient);
    release(scratch);
  },
};

function drop(squares: Tensor, mask: DropoutMask, { heads, length }: AttentionShape): Tensor {
  const out = empty(squares.device, squares.shape, "workspace", squares.dtype);
  dropout(out, squares, mask, heads * length);
  return out;
}

/** The matrices of an operand: one for each query head, or one for those that share keys and values. */
interface Heads extends Matrices {
  readonly shared: boolean;
}

/** `out = a b` for each query head. A batch has two axes, so query heads that share keys have a pass each. */
function multiply(shape: AttentionShape, out: Heads, a: Heads, b: Heads, options: MatmulOptions = {}) {
  const { sequences, heads, kvHeads = heads } = shape;
  for (let member = 0; member < heads / kvHeads; member++) {
    const of = (matrices: Heads) => memberOf(matrices, member, shape);
    matmulBatched(of(out), of(a), of(b), [sequences, kvHeads], options);
  }
}

/** `out = scale * a^T b`, summed over the query heads that share the keys or values whose gradient `out` is. */
function multiplyShared(shape: AttentionShape, out: Heads, a: Heads, b: Heads, scale: number) {
  const { sequences, heads, kvHeads = heads } = shape;
  for (let member = 0; member < heads / kvHeads; member++) {
    const [left, right] = [memberOf(a, member, shape), memberOf(b, member, shape)];
    matmulBatched(out, left, right, [sequences, kvHeads], { transposeA: true, scale, accumulate: member > 0 });
  }
}

/** Of query head matrices those that are number `member` among the ones which share keys; of shared matrices all. */
function memberOf(matrices: Heads, member: number, { heads, kvHeads = heads }: AttentionShape): Matrices {
  if (matrices.shared) return matrices;
  const { offset, strides: [sequence, head] } = matrices;
  return { ...matrices, offset: offset + member * head, strides: [sequence, heads / kvHeads * head] };
}

/** Queries, keys and values in a tensor of packed rows. */
function partsOf(tensor: Tensor, shape: AttentionShape): Record<"q" | "k" | "v", Heads> {
  const { length, heads, kvHeads = heads, headSize } = shape;
  const rowStride = qkvWidth(shape);
  const part = (before: number, shared: boolean): Heads => ({
    tensor,
    rows: length,
    columns: headSize,
    rowStride,
    offset: before * headSize,
    strides: [length * rowStride, headSize],
    shared,
  });
  return { q: part(0, false), k: part(heads, true), v: part(heads + kvHeads, true) };
}

/** The heads of a [sequences * length, heads * headSize] tensor. */
function headsOf(tensor: Tensor, { length, heads, headSize }: AttentionShape): Heads {
  const rowStride = heads * headSize;
  const strides = [length * rowStride, headSize] as const;
  return { tensor, rows: length, columns: headSize, rowStride, offset: 0, strides, shared: false };
}

/** The square matrices of a [sequences, heads, length, length] tensor. */
function squaresOf(tensor: Tensor, { length, heads }: AttentionShape): Heads {
  const size = length * length;
  const strides = [heads * size, size] as const;
  return { tensor, rows: length, columns: length, rowStride: length, offset: 0, strides, shared: false };
}
