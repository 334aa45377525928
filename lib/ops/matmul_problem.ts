/** What a multiplication of matrices is given, checked. */
import type { Tensor } from "../tensor.ts";

/** Where the matrices of one operand lie inside its tensor, in elements. */
export interface Layout {
  /** The tensor that holds them all. */
  readonly tensor: Tensor;
  /** From one row to the next. */
  readonly rowStride: number;
  /** The first element of the first matrix. */
  readonly offset: number;
  /** From one matrix to the next, along each batch axis. */
  readonly strides: readonly [number, number];
}

/** A checked multiplication: `out[m, n] (+)= scale * a[m, k] b[k, n]` for each matrix of the batch. */
export interface Problem {
  /** Rows of the result. */
  readonly m: number;
  /** Columns of the result. */
  readonly n: number;
  /** Products in each sum. */
  readonly k: number;
  /** Matrices along the two batch axes. */
  readonly batch: readonly [number, number];
  /** [m, n] */
  readonly out: Layout;
  /** [m, k], or [k, m] with {@link transposeA} */
  readonly a: Layout;
  /** [k, n], or [n, k] with {@link transposeB} */
  readonly b: Layout;
  /** Whether `a` is stored transposed. */
  readonly transposeA: boolean;
  /** Whether `b` is stored transposed. */
  readonly transposeB: boolean;
  /** Whether the product is added to `out`. */
  readonly accumulate: boolean;
  /** Factor of the product. */
  readonly scale: number;
  /** Of a weight's gradient: how many of the k products belong to one sample, the first ones to the first sample, and so on. */
  readonly sampleRows?: number;
}

/** Whether every load, store and step of k can be four elements at once. */
export function inFours({ m, n, k, out, a, b, transposeA }: Problem): boolean {
  let bits = (transposeA ? m : 0) | n | k;
  for (const { rowStride, offset, strides } of [out, a, b]) bits |= rowStride | offset | strides[0] | strides[1];
  return (bits & 3) === 0;
}
