/** Matrix multiplication of f32 and f16 tensors, single and batched. Sums are f32. */
import { UserError } from "../errors.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { defineOperation, type Operation, roughly } from "./choice.ts";
import { candidates } from "./matmul_kernels.ts";
import { inFours, type Layout, type Problem } from "./matmul_problem.ts";
import { perSample } from "./matmul_samples.ts";
import { usual } from "./usual.ts";

/**
 * A batch of row-major matrices inside a tensor: element (r, c) of matrix (i, j) is at
 * `offset + i*strides[0] + j*strides[1] + r*rowStride + c`, in elements.
 */
export interface Matrices extends Layout {
  /** Rows of a matrix as stored. */
  readonly rows: number;
  /** Columns of a matrix as stored. */
  readonly columns: number;
}

/** What {@link matmul} does beyond a plain product. */
export interface MatmulOptions {
  /** `a` is stored [K, M]. */
  transposeA?: boolean;
  /** `b` is stored [N, K]. */
  transposeB?: boolean;
  /** Add to `out` instead of replacing it. */
  accumulate?: boolean;
  /** Factor of the product, 1 by default: `out (+)= scale * a b`. */
  scale?: number;
  /**
   * For the gradient of a weight, whose sums go over the rows of all samples: how many rows a sample has. One candidate makes a
   * product of each sample; the others pass over it.
   */
  sampleRows?: number;
}

/**
 * `out[M, N] = a[M, K] b[K, N]` for dense tensors; leading axes fold into the rows: an [S, T, D] tensor counts as
 * [S*T, D]. Backward: `da = matmul(dout, b, transposeB)`, `db = matmul(a, dout, transposeA)`.
 * Throws where the shapes do not fit. `out` must not share memory with `a` or `b`.
 */
export function matmul(out: Tensor, a: Tensor, b: Tensor, options: MatmulOptions = {}): void {
  multiply("matmul", dense(out), dense(a), dense(b), [1, 1], options);
}

/**
 * {@link matmul} for `batch[0]` x `batch[1]` matrices at strides of their own: the heads of an attention layer inside a
 * [rows, 3 * heads * headSize] tensor, say. What lies between the matrices of `out` is left alone; a stride of 0 in `a`
 * or `b` uses one matrix for all.
 * Throws where the shapes do not fit or a matrix reaches beyond its tensor.
 */
export function matmulBatched(
  out: Matrices,
  a: Matrices,
  b: Matrices,
  batch: readonly [number, number],
  options: MatmulOptions = {},
): void {
  for (const [name, matrices] of Object.entries({ out, a, b })) inside(name, matrices, batch);
  multiply("matmulBatched", out, a, b, batch, options);
}

function multiply(
  name: string,
  out: Matrices,
  a: Matrices,
  b: Matrices,
  batch: readonly [number, number],
  { transposeA = false, transposeB = false, accumulate = false, scale = 1, sampleRows }: MatmulOptions,
) {
  const [m, k] = transposeA ? [a.columns, a.rows] : [a.rows, a.columns];
  const [depth, n] = transposeB ? [b.columns, b.rows] : [b.rows, b.columns];
  if (k !== depth || out.rows !== m || out.columns !== n) {
    const shape = ({ rows, columns }: Matrices, transposed: boolean) =>
      `[${rows}, ${columns}]${transposed ? " transposed" : ""}`;
    throw new UserError(
      `${name}: ${shape(a, transposeA)} times ${shape(b, transposeB)} does not give ${shape(out, false)}`,
    );
  }
  if (m * n * batch[0] * batch[1] === 0) return;
  const problem: Problem = { m, n, k, batch, out, a, b, transposeA, transposeB, accumulate, scale, sampleRows };
  matmulOperation.run(problem);
}

/** The choice of kernel. */
export const matmulOperation: Operation<Problem> = defineOperation({
  name: "matmul",
  candidates: [...candidates, perSample((products) => matmulOperation.run(products))],
  rule: ({ kind }, { m }) => usual[kind].matmul(m),
  classOf(problem) {
    const { m, n, k, batch, out, a, b, transposeA, transposeB, accumulate } = problem;
    return `${roughly(m, n, k)} ${transposeA ? "T" : "N"}${transposeB ? "T" : "N"} ` +
      `${a.tensor.dtype} ${b.tensor.dtype} ${accumulate ? "+" : ""}${out.tensor.dtype} ` +
      `${roughly(batch[0] * batch[1])}${inFours(problem) ? "" : " odd"}`;
  },
  outputs: ({ out }) => [out.tensor],
  flops: ({ m, n, k, batch }) => 2 * m * n * k * batch[0] * batch[1],
});

function dense(tensor: Tensor): Matrices {
  const columns = tensor.shape[tensor.shape.length - 1] ?? 1;
  const rows = sizeOf(tensor.shape.slice(0, -1));
  return { tensor, rows, columns, rowStride: columns, offset: 0, strides: [0, 0] };
}

function inside(name: string, matrices: Matrices, batch: readonly [number, number]) {
  const { tensor, rows, columns, rowStride, offset, strides } = matrices;
  const end = offset + (batch[0] - 1) * strides[0] + (batch[1] - 1) * strides[1] + (rows - 1) * rowStride + columns;
  if (end > sizeOf(tensor.shape)) {
    throw new UserError(
      `matmulBatched: [${batch}] matrices [${rows}, ${columns}] of ${name} end at element ${end} of a tensor ` +
        `of shape [${tensor.shape}]`,
    );
  }
}
