/** The core of causal self-attention: scores, softmax, weighted sum. It has no parameters: p1 only. */
import { kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { matmulBatched, type Matrices } from "./matmul.ts";
import { expectShape } from "./shapes.ts";
import { rowVariant } from "./variants.ts";

/** Sizes of an attention layer. */
export interface AttentionShape {
  readonly sequences: number;
  /** Positions of a sequence, T. */
  readonly length: number;
  readonly heads: number;
  readonly headSize: number;
}

const forward = {
  plain: kernel("softmax", "forward"),
  vec4: kernel("softmax_vec4", "forward"),
  group: kernel("softmax_group", "forward"),
};
const backward = {
  plain: kernel("softmax", "backward"),
  vec4: kernel("softmax_vec4", "backward"),
  group: kernel("softmax_group", "backward"),
};

/**
 * `out = softmax(q k^T / sqrt(headSize)) v` for each head, each position seeing those up to itself (Vaswani et al., 2017,
 * section 3.2.1). With R = sequences * length and W = heads * headSize: out [R, W]; probabilities
 * [sequences, heads, length, length], kept for the backward, 0 above the diagonal; qkv [R, 3W], each row the query heads,
 * the key heads, the value heads.
 */
export function attention(out: Tensor, probabilities: Tensor, qkv: Tensor, shape: AttentionShape): void {
  const { sequences, length, heads, headSize } = shape;
  const rows = sequences * length, width = heads * headSize;
  expectShape("attention", "out", out, [rows, width]);
  expectShape("attention", "probabilities", probabilities, [sequences, heads, length, length]);
  expectShape("attention", "qkv", qkv, [rows, 3 * width]);
  const batch = [sequences, heads] as const;
  const scale = 1 / Math.sqrt(headSize);
  const squares = squaresOf(probabilities, shape);
  matmulBatched(squares, headsOf(qkv, 0, shape), headsOf(qkv, 1, shape), batch, { transposeB: true, scale });
  softmax(forward, probabilities, [probabilities], shape);
  matmulBatched(headsOf(out, 0, shape, 1), squares, headsOf(qkv, 2, shape), batch);
}

/**
 * The gradient of {@link attention} with respect to qkv. dqkv, qkv: [R, 3W]; dout: [R, W]; probabilities as the forward
 * left them; scratch: as large, for the gradient of the scores.
 */
export function attentionBackward(
  dqkv: Tensor,
  dout: Tensor,
  qkv: Tensor,
  probabilities: Tensor,
  scratch: Tensor,
  shape: AttentionShape,
): void {
  const { sequences, length, heads, headSize } = shape;
  const rows = sequences * length, width = heads * headSize;
  expectShape("attentionBackward", "dqkv", dqkv, [rows, 3 * width]);
  expectShape("attentionBackward", "dout", dout, [rows, width]);
  expectShape("attentionBackward", "qkv", qkv, [rows, 3 * width]);
  expectShape("attentionBackward", "probabilities", probabilities, [sequences, heads, length, length]);
  expectShape("attentionBackward", "scratch", scratch, [sequences, heads, length, length]);
  const batch = [sequences, heads] as const;
  const scale = 1 / Math.sqrt(headSize);
  const dheads = headsOf(dout, 0, shape, 1);
  const [q, k, v] = [0, 1, 2].map((part) => headsOf(qkv, part, shape));
  const [dq, dk, dv] = [0, 1, 2].map((part) => headsOf(dqkv, part, shape));
  const squares = squaresOf(probabilities, shape), dsquares = squaresOf(scratch, shape);
  matmulBatched(dv, squares, dheads, batch, { transposeA: true });
  matmulBatched(dsquares, dheads, v, batch, { transposeB: true });
  softmax(backward, scratch, [scratch, probabilities], shape);
  matmulBatched(dq, dsquares, k, batch, { scale });
  matmulBatched(dk, dsquares, q, batch, { transposeA: true, scale });
}

function softmax(kernels: typeof forward, x: Tensor, views: Tensor[], { sequences, heads, length }: AttentionShape) {
  const variant = rowVariant(x.device, length);
  const rows = sequences * heads * length;
  x.device.dispatch(kernels[variant], [rows, length], views, lanes(rows, variant === "group" ? 1 : 64));
}

/** The heads of part `part` of a tensor whose rows are `parts` parts: queries, keys and values. */
function headsOf(tensor: Tensor, part: number, { length, heads, headSize }: AttentionShape, parts = 3): Matrices {
  const width = heads * headSize, rowStride = parts * width;
  return {
    tensor,
    rows: length,
    columns: headSize,
    rowStride,
    offset: part * width,
    strides: [length * rowStride, headSize],
  };
}

/** The square matrices of a [sequences, heads, length, length] tensor. */
function squaresOf(tensor: Tensor, { length, heads }: AttentionShape): Matrices {
  const size = length * length;
  return { tensor, rows: length, columns: length, rowStride: length, offset: 0, strides: [heads * size, size] };
}
