/** The kernels that can multiply matrices, and which one a device is given. */
import type { GpuInfo } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import type { ParameterValues } from "../gpu/parameters.ts";
import { hasAvx2 } from "../gpu/processor.ts";
import type { Candidate } from "./choice.ts";
import { lanes } from "./elementwise.ts";
import { inFours, type Layout, type Problem } from "./matmul_problem.ts";
import { splitCandidate } from "./matmul_split.ts";
import { inLayers } from "./variants.ts";

/** How many workgroups make one matrix of the result. */
type GroupCount = (info: GpuInfo, problem: Problem) => number;

/**
 * Every kernel, the plain reference first: `file:entry` in `kernels/`, what it needs, and how many workgroups make one
 * matrix of the result.
 */
const kernels: readonly Candidate<Problem>[] = [
  candidate("matmul:plain", () => true, (_, { m, n }) => Math.ceil(m * n / 64)),
  candidate("matmul_registers:scalars", () => true, tiles(16, () => 16)),
  candidate("matmul_registers:vectors", (_, problem) => inFours(problem), tiles(32, () => 32)),
  candidate("matmul_subgroup:broadcastScalars", hasLanes, tiles(16, (info) => 4 * info.subgroupSize)),
  candidate(
    "matmul_subgroup:broadcast",
    (info, problem) => hasLanes(info) && inFours(problem),
    tiles(32, (info) => 4 * info.subgroupSize),
  ),
  candidate(
    "matmul_quad:quads",
    hasQuads,
    tiles(32, () => 32),
  ),
  candidate("matmul_workgroup:workgroupTile", () => true, tiles(64, () => 64)),
  candidate("matmul_tile:tile", (_, problem) => inFours(problem), tiles(64, () => 64), { SIDE: 64 }, "/64"),
  candidate("matmul_tile:tile", (_, problem) => inFours(problem), tiles(128, () => 128), { SIDE: 128 }, "/128"),
  candidate("matmul_matrix:matrix", hasMatrixUnits, (_, { m, n }) => Math.ceil(m / 128) * Math.ceil(n / 64)),
];

/** Every way to multiply, the plain reference first. */
export const candidates: readonly Candidate<Problem>[] = [
  ...kernels,
  splitCandidate(kernels.find(({ name }) => name === "matmul_tile:tile/64")!),
];

/** Files whose kernels meet at barriers: on a processor a fifth of the speed of the others, after seconds of compilation. */
const barriers = new Set(["matmul_workgroup", "matmul_tile", "matmul_matrix"]);

function tiles(rows: number, columns: (info: GpuInfo) => number): GroupCount {
  return (info, { m, n }) => Math.ceil(m / rows) * Math.ceil(n / columns(info));
}

function candidate(
  path: string,
  supports: Candidate<Problem>["supports"],
  groups: GroupCount,
  constants: Record<string, number> = {},
  suffix = "",
): Candidate<Problem> {
  const [file, entry] = path.split(":");
  const variants = new Map<number, Kernel>();
  return {
    name: path + suffix,
    supports,
    hopeless: (info) => info.software && barriers.has(file),
    record(problem) {
      const { batch, transposeA, transposeB, out, a, b } = problem;
      const { device } = out.tensor;
      const { info } = device.gpu;
      const key = info.subgroupSize * 4 + Number(transposeA) * 2 + Number(transposeB);
      let variant = variants.get(key);
      if (!variant) {
        variant = kernel(file, entry, {
          TRANSPOSE_A: Number(transposeA),
          TRANSPOSE_B: Number(transposeB),
          ...(file === "matmul_subgroup"
            ? { LANES: info.subgroupSize, SHUFFLE: Number(shuffles(info.subgroupSize)) }
            : {}),
          ...constants,
        });
        variants.set(key, variant);
      }
      const [x, y] = lanes(groups(info, problem), 1);
      inLayers(batch[0] * batch[1], (first, layers) =>
        device.dispatch(
          variant,
          { ...parametersOf(problem), first },
          [out.tensor, a.tensor, b.tensor],
          [x, y, layers],
        ));
    },
  };
}

function parametersOf({ m, n, k, batch, out, a, b, scale, accumulate }: Problem): ParameterValues {
  return {
    m,
    n,
    k,
    batch1: batch[1],
    out: matricesOf(out),
    a: matricesOf(a),
    b: matricesOf(b),
    scale,
    accumulate: Number(accumulate),
  };
}

function matricesOf({ rowStride, offset, strides }: Layout): ParameterValues {
  return { rowStride, offset, stride0: strides[0], stride1: strides[1] };
}

/** Both operands f16: an f32 would lose what the other kernels keep. */
function hasMatrixUnits(info: GpuInfo, problem: Problem): boolean {
  return info.matrixUnits && info.subgroupSize === 32 && inFours(problem) &&
    problem.a.tensor.dtype === "f16" && problem.b.tensor.dtype === "f16";
}

/** Subgroups that are one quad, and eight steps of k at a time. */
function hasQuads(info: GpuInfo, problem: Problem): boolean {
  return info.subgroupSize === 4 && inFours(problem) && problem.k % 8 === 0;
}

/**
 * Whether a lane's value is to be had by a shuffle: lavapipe makes one instruction of it for eight lanes and AVX2, where a broadcast is
 * three; otherwise a loop over the lanes.
 */
export function shuffles(lanes: number, avx2: boolean = hasAvx2()): boolean {
  return lanes === 8 && avx2;
}

function hasLanes(info: GpuInfo): boolean {
  return info.subgroupSize === 4 || info.subgroupSize === 8 || info.subgroupSize === 16;
}
