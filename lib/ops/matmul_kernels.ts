/** The kernels that can multiply matrices, and which one a device is given. */
import { floatBits, type GpuInfo } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";

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
}

/** One way to multiply matrices. */
export interface Candidate {
  /** `file:entry` in `kernels/` */
  readonly name: string;
  /** Whether the kernel computes this problem correctly on such a device. Says nothing about speed. */
  supports(info: GpuInfo, problem: Problem): boolean;
  /** Records the kernel on the device of `problem.out`. */
  dispatch(problem: Problem): void;
}

/** Every kernel, the plain reference first: `file:entry` in `kernels/`, and the elements that a workgroup makes. */
export const candidates: readonly Candidate[] = [
  candidate("matmul:plain", () => true, (_, { m, n }) => Math.ceil(m * n / 64)),
  candidate("matmul_registers:scalars", () => true, tiles(16, () => 16)),
  candidate("matmul_registers:vectors", (_, problem) => inFours(problem), tiles(32, () => 32)),
  candidate("matmul_subgroup:broadcastScalars", hasLanes, tiles(16, (info) => 4 * info.subgroupSize)),
  candidate(
    "matmul_subgroup:broadcast",
    (info, problem) => hasLanes(info) && inFours(problem),
    tiles(32, (info) => 4 * info.subgroupSize),
  ),
  candidate("matmul_workgroup:workgroupTile", () => true, tiles(64, () => 64)),
];

/**
 * The candidate for this device and shape: workgroup memory on a GPU, registers on a processor that poses as one, with
 * broadcasts where it has subgroups. The figures behind this rule stand at the head of each kernel. Small shapes have no
 * rule of their own: in tiles that are mostly empty, 128 x 128 by 4 takes 58 us (plain 139), by 1 111 us (plain 72).
 */
export function choose(info: GpuInfo, problem: Problem): Candidate {
  const fits = (name: string) => candidates.find((each) => each.name === name && each.supports(info, problem));
  if (!info.software) return fits("matmul_workgroup:workgroupTile")!;
  return fits("matmul_subgroup:broadcast") ?? fits("matmul_subgroup:broadcastScalars") ??
    fits("matmul_registers:vectors") ?? fits("matmul_registers:scalars")!;
}

/** How many workgroups make one matrix of the result. */
type GroupCount = (info: GpuInfo, problem: Problem) => number;

function tiles(rows: number, columns: (info: GpuInfo) => number): GroupCount {
  return (info, { m, n }) => Math.ceil(m / rows) * Math.ceil(n / columns(info));
}

function candidate(name: string, supports: Candidate["supports"], groups: GroupCount): Candidate {
  const [file, entry] = name.split(":");
  const variants = new Map<number, Kernel>();
  return {
    name,
    supports,
    dispatch(problem) {
      const { batch, transposeA, transposeB, out, a, b } = problem;
      const { device } = out.tensor;
      const { info } = device.gpu;
      const key = info.subgroupSize * 4 + Number(transposeA) * 2 + Number(transposeB);
      let variant = variants.get(key);
      if (!variant) {
        variant = kernel(file, entry, {
          TRANSPOSE_A: Number(transposeA),
          TRANSPOSE_B: Number(transposeB),
          ...(file === "matmul_subgroup" ? { LANES: info.subgroupSize } : {}),
        });
        variants.set(key, variant);
      }
      const [x, y] = lanes(groups(info, problem), 1);
      device.dispatch(variant, words(problem), [out.tensor, a.tensor, b.tensor], [x, y, batch[0] * batch[1]]);
    },
  };
}

/** The uniform block `Parameters` of every matmul kernel. */
function words({ m, n, k, batch, out, a, b, scale, accumulate }: Problem): number[] {
  const layout = ({ rowStride, offset, strides }: Layout) => [rowStride, offset, ...strides];
  return [m, n, k, batch[1], ...layout(out), ...layout(a), ...layout(b), floatBits(scale), Number(accumulate)];
}

/** Whether every load, store and step of k can be four elements at once. */
function inFours({ m, n, k, out, a, b, transposeA }: Problem): boolean {
  const sizes = transposeA ? [m, n, k] : [n, k];
  for (const { rowStride, offset, strides } of [out, a, b]) sizes.push(rowStride, offset, ...strides);
  return sizes.every((size) => size % 4 === 0);
}

function hasLanes(info: GpuInfo): boolean {
  return [4, 8, 16].includes(info.subgroupSize);
}
