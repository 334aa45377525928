import type { AttentionShape } from "../../lib/ops/attention.ts";

/** What attention leaves out. */
export interface Masks {
  /** Valid positions of each sequence. */
  readonly lengths?: ArrayLike<number>;
  /** Where the document of each position starts, of each sequence. */
  readonly starts?: ArrayLike<number>;
  /** What dropout multiplies each probability with. */
  readonly factors?: ArrayLike<number>;
}

/** Self-attention in float64: `softmax(q k^T / sqrt(headSize)) v` for each head; rows [q heads | k heads | v heads]. */
export function attention(qkv: ArrayLike<number>, shape: AttentionShape, masks: Masks = {}) {
  const { sequences, length, heads, headSize } = shape;
  const { q, k, v } = parts(shape);
  const out = new Float64Array(sequences * length * heads * headSize);
  const probabilities = new Float64Array(sequences * heads * length * length);
  const logSumExps = new Float64Array(sequences * heads * length);
  for (let s = 0; s < sequences; s++) {
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < length; i++) {
        const start = square(shape, s, h) + i * length, [from, seen] = seenBy(shape, masks, s, i);
        const row = probabilities.subarray(start, start + length);
        for (let j = from; j < seen; j++) {
          for (let c = 0; c < headSize; c++) row[j] += qkv[q(s, h, i, c)] * qkv[k(s, h, j, c)] / Math.sqrt(headSize);
        }
        const highest = Math.max(...row.subarray(from, seen));
        for (let j = from; j < seen; j++) row[j] = Math.exp(row[j] - highest);
        const sum = row.subarray(from, seen).reduce((a, b) => a + b);
        for (let j = from; j < seen; j++) row[j] /= sum;
        logSumExps[(s * heads + h) * length + i] = highest + Math.log(sum);
        for (let j = from; j < seen; j++) {
          const p = row[j] * (masks.factors?.[start + j] ?? 1);
          for (let c = 0; c < headSize; c++) out[output(shape, s, h, i, c)] += p * qkv[v(s, h, j, c)];
        }
      }
    }
  }
  return { out, probabilities, logSumExps };
}

/** The gradient of {@link attention} with respect to qkv. */
export function attentionBackward(
  dout: ArrayLike<number>,
  qkv: ArrayLike<number>,
  probabilities: ArrayLike<number>,
  shape: AttentionShape,
  masks: Masks = {},
): Float64Array {
  const { sequences, length, heads, headSize } = shape;
  const { q, k, v } = parts(shape);
  const dqkv = new Float64Array(qkv.length);
  for (let s = 0; s < sequences; s++) {
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < length; i++) {
        const start = square(shape, s, h) + i * length, [from, seen] = seenBy(shape, masks, s, i);
        const p = (j: number) => probabilities[start + j];
        const dp = new Float64Array(seen);
        for (let j = from; j < seen; j++) {
          const factor = masks.factors?.[start + j] ?? 1;
          for (let c = 0; c < headSize; c++) {
            dp[j] += factor * dout[output(shape, s, h, i, c)] * qkv[v(s, h, j, c)];
            dqkv[v(s, h, j, c)] += factor * p(j) * dout[output(shape, s, h, i, c)];
          }
        }
        const mean = dp.reduce((sum, value, j) => j < from ? sum : sum + p(j) * value, 0);
        for (let j = from; j < seen; j++) {
          const dscore = p(j) * (dp[j] - mean) / Math.sqrt(headSize);
          for (let c = 0; c < headSize; c++) {
            dqkv[q(s, h, i, c)] += dscore * qkv[k(s, h, j, c)];
            dqkv[k(s, h, j, c)] += dscore * qkv[q(s, h, i, c)];
          }
        }
      }
    }
  }
  return dqkv;
}

/** The positions that position `i` of sequence `s` sees, from and below: without documents the first one always. */
function seenBy({ length, causal = true }: AttentionShape, { lengths, starts }: Masks, s: number, i: number) {
  const below = Math.max(1, Math.min(causal ? i + 1 : length, lengths?.[s] ?? length));
  return [starts?.[s * length + i] ?? 0, below];
}

/** Where element `c` of query head `h`, or of the key or value head it uses, lies at position `i` of sequence `s` in qkv. */
function parts({ length, heads, kvHeads = heads, headSize }: AttentionShape) {
  const rowStride = (heads + 2 * kvHeads) * headSize;
  const at = (before: number, sharing: number) => (s: number, h: number, i: number, c: number) =>
    (s * length + i) * rowStride + (before + Math.floor(h / sharing)) * headSize + c;
  return { q: at(0, 1), k: at(heads, heads / kvHeads), v: at(heads + kvHeads, heads / kvHeads) };
}

function output({ length, heads, headSize }: AttentionShape, s: number, h: number, i: number, c: number): number {
  return ((s * length + i) * heads + h) * headSize + c;
}

/** Where the matrix of head `h` of sequence `s` begins. */
function square({ length, heads }: AttentionShape, s: number, h: number): number {
  return (s * heads + h) * length * length;
}
