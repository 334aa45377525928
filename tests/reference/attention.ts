import type { AttentionShape } from "../../lib/ops/attention.ts";

/** Causal self-attention in float64: `softmax(q k^T / sqrt(headSize)) v` for each head; rows [q heads | k heads | v heads]. */
export function attention(qkv: ArrayLike<number>, shape: AttentionShape) {
  const { sequences, length, heads, headSize } = shape;
  const { q, k, v } = parts(shape);
  const out = new Float64Array(sequences * length * heads * headSize);
  const probabilities = new Float64Array(sequences * heads * length * length);
  for (let s = 0; s < sequences; s++) {
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < length; i++) {
        const row = probabilities.subarray(square(shape, s, h) + i * length, square(shape, s, h) + (i + 1) * length);
        for (let j = 0; j <= i; j++) {
          for (let c = 0; c < headSize; c++) row[j] += qkv[q(s, h, i, c)] * qkv[k(s, h, j, c)] / Math.sqrt(headSize);
        }
        const highest = Math.max(...row.subarray(0, i + 1));
        for (let j = 0; j <= i; j++) row[j] = Math.exp(row[j] - highest);
        const sum = row.subarray(0, i + 1).reduce((a, b) => a + b);
        for (let j = 0; j <= i; j++) row[j] /= sum;
        for (let j = 0; j <= i; j++) {
          for (let c = 0; c < headSize; c++) out[output(shape, s, h, i, c)] += row[j] * qkv[v(s, h, j, c)];
        }
      }
    }
  }
  return { out, probabilities };
}

/** The gradient of {@link attention} with respect to qkv. */
export function attentionBackward(
  dout: ArrayLike<number>,
  qkv: ArrayLike<number>,
  probabilities: ArrayLike<number>,
  shape: AttentionShape,
): Float64Array {
  const { sequences, length, heads, headSize } = shape;
  const { q, k, v } = parts(shape);
  const dqkv = new Float64Array(qkv.length);
  for (let s = 0; s < sequences; s++) {
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < length; i++) {
        const p = (j: number) => probabilities[square(shape, s, h) + i * length + j];
        const dp = new Float64Array(i + 1);
        for (let j = 0; j <= i; j++) {
          for (let c = 0; c < headSize; c++) {
            dp[j] += dout[output(shape, s, h, i, c)] * qkv[v(s, h, j, c)];
            dqkv[v(s, h, j, c)] += p(j) * dout[output(shape, s, h, i, c)];
          }
        }
        const mean = dp.reduce((sum, value, j) => sum + p(j) * value, 0);
        for (let j = 0; j <= i; j++) {
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

/** Where element `c` of head `h` at position `i` of sequence `s` lies in qkv, as query, key and value. */
function parts({ length, heads, headSize }: AttentionShape) {
  const at = (part: number) => (s: number, h: number, i: number, c: number) =>
    (s * length + i) * 3 * heads * headSize + part * heads * headSize + h * headSize + c;
  return { q: at(0), k: at(1), v: at(2) };
}

function output({ length, heads, headSize }: AttentionShape, s: number, h: number, i: number, c: number): number {
  return ((s * length + i) * heads + h) * headSize + c;
}

/** Where the matrix of head `h` of sequence `s` begins. */
function square({ length, heads }: AttentionShape, s: number, h: number): number {
  return (s * heads + h) * length * length;
}
