/** The kernels that can multiply matrices, and which one a device is given. */
import type { GpuInfo } from "../gpu/gpu.ts";
import { floatBits } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";

/** Where the matrices of one operand lie inside its tensor, in elements. */
export interface Layout {
  readonly tensor: Tensor;
  readonly rowStride: number;
  readonly offset: number;
  readonly strides: readonly [number, number];
}

/** A checked multiplication: `out[m, n] (+)= scale * a[m, k] b[k, n]` for each matrix of the batch. */
export interface Problem {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: readonly [number, number];
  readonly out: Layout;
  readonly a: Layout;
  readonly b: Layout;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly accumulate: boolean;
  readonly scale: number;
}

/** One way to multiply matrices. */
export interface Candidate {
  readonly name: string;
  /** Whether the kernel computes this problem correctly on such a device. Says nothing about speed. */
  supports(info: GpuInfo, problem: Problem): boolean;
  /** Records the kernel on the device of `problem.out`. */
  dispatch(problem: Problem): void;
}

/** Every kernel, the plain reference first. */
export const candidates: readonly Candidate[] = [
  tiled("plain", () => true, () => kernel("matmul", "plain"), () => 64, () => 1),
];

/** The candidate that is right and, by the figures in the kernels' headers, fast for this device and shape. */
export function choose(_info: GpuInfo, _problem: Problem): Candidate {
  return candidates[0];
}

function tiled(
  name: string,
  supports: Candidate["supports"],
  kernelFor: (info: GpuInfo) => Kernel,
  _rows: (info: GpuInfo) => number,
  _columns: (info: GpuInfo) => number,
): Candidate {
  return {
    name,
    supports,
    dispatch(problem) {
      const { m, n, batch, transposeA, transposeB, out, a, b } = problem;
      const { device } = out.tensor;
      const { file, entry } = kernelFor(device.gpu.info);
      const variant = kernel(file, entry, { TRANSPOSE_A: Number(transposeA), TRANSPOSE_B: Number(transposeB) });
      const [x, y] = lanes(m * n);
      device.dispatch(variant, words(problem), [out.tensor, a.tensor, b.tensor], [x, y, batch[0] * batch[1]]);
    },
  };
}

/** The uniform block `Parameters` of every matmul kernel. */
function words({ m, n, k, batch, out, a, b, scale, accumulate }: Problem): number[] {
  const layout = ({ rowStride, offset, strides }: Layout) => [rowStride, offset, ...strides];
  return [m, n, k, batch[1], ...layout(out), ...layout(a), ...layout(b), floatBits(scale), Number(accumulate)];
}
