/**
 * Kernels that come in several shapes of work, and which one a device is given.
 *
 * On a processor a row is best left to one invocation (its neighbours in the vector register take the next rows), a
 * barrier costs more than a row, and starting a workgroup as much as 100 elements; a GPU wants neighbouring invocations
 * on neighbouring elements, and a workgroup for each row where a row is summed up.
 */
import type { Device } from "../gpu/device.ts";
import type { GpuInfo } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import type { Tensor } from "../tensor.ts";
import { type Candidate, defineOperation, forcedCandidate, type Operation, roughly, withCandidate } from "./choice.ts";
import { rowsOf, widthOf } from "./shapes.ts";

/**
 * `plain`: one invocation a row, element by element, the reference; `vec4`: the same, four elements a load, for widths
 * that divide by 4; `group`: neighbouring invocations on neighbouring elements, and a reduction in workgroup memory where
 * a row is summed up.
 */
export type RowVariant = "plain" | "vec4" | "group";

/** The variant for rows of `width` elements on `device`, where nothing was measured. */
export function rowVariant(device: Device, width: number): RowVariant {
  const forced = forcedCandidate();
  if (forced === "plain" || forced === "group" || (forced === "vec4" && width % 4 === 0)) return forced;
  return usualVariant(device.gpu.info, width);
}

function usualVariant({ software }: GpuInfo, width: number): RowVariant {
  if (!software) return "group";
  return width % 4 === 0 ? "vec4" : "plain";
}

/** Records with one variant wherever it can serve, whatever the device would choose: for tests and benchmarks. */
export function withRowVariant(variant: RowVariant, record: () => void): void {
  withCandidate(variant, record);
}

/** An operation on rows whose problem is the list of its arguments, the tensors that are written first. */
export interface RowOperationSpec<Arguments extends readonly unknown[]> {
  /** The name of the function that runs it. */
  readonly name: string;
  /** How many arguments are written. */
  readonly outputs: number;
  /** Which argument has the rows that decide how the work is shared out. */
  readonly rows: number;
  /** Records one variant. */
  record(variant: RowVariant, ...problem: Arguments): void;
}

/** An operation whose candidates are the row variants. */
export function rowOperation<Arguments extends readonly unknown[]>(
  { name, outputs, rows, record }: RowOperationSpec<Arguments>,
): Operation<Arguments> {
  const rowsTensor = (problem: Arguments) => problem[rows] as Tensor;
  const candidate = (variant: RowVariant): Candidate<Arguments> => ({
    name: variant,
    supports: (_, problem) => variant !== "vec4" || widthOf(rowsTensor(problem)) % 4 === 0,
    record: (problem) => record(variant, ...problem),
  });
  return defineOperation({
    name,
    candidates: [candidate("plain"), candidate("vec4"), candidate("group")],
    classOf(problem) {
      const tensor = rowsTensor(problem), width = widthOf(tensor);
      const dtypes = problem.map((each) => (each as Tensor | undefined)?.dtype).filter(Boolean);
      return `${roughly(rowsOf(tensor), width)} ${dtypes.join(" ")}${width % 4 === 0 ? "" : " odd"}`;
    },
    rule: (info, problem) => usualVariant(info, widthOf(rowsTensor(problem))),
    outputs: (problem) => problem.slice(0, outputs) as unknown as Tensor[],
  });
}

/**
 * How the `rows` of a column are dealt out where columns are summed up. A GPU has far more invocations than there are
 * columns: blocks of rows go side by side, 256 at most, which one invocation adds up. A processor is as fast with one
 * block, and spared the second kernel.
 */
export function sumBlocks(variant: RowVariant, rows: number): { block: number; blocks: number } {
  const block = variant === "group" ? Math.max(32, Math.ceil(rows / 256)) : rows;
  return { block, blocks: Math.ceil(rows / block) };
}

/** A kernel for one shape and device. */
export interface RowKernel {
  readonly kernel: Kernel;
  /** Elements that make one step along a row: the kernel counts widths in these. */
  readonly perLane: 1 | 4;
  readonly grid: [number, number];
}

/**
 * A kernel that treats the elements of rows one by one, as a function of the device and shape. The file has it as `entry`
 * and, for vec4s, as `entry` + "4"; its workgroups are COLUMNS x ROWS invocations, each of which goes along its row in
 * steps of COLUMNS.
 */
export function rowKernel(
  file: string,
  entry: string,
): (device: Device, rows: number, width: number, variant?: RowVariant) => RowKernel {
  const tall = { COLUMNS: 1, ROWS: 64 }, wide = { COLUMNS: 64, ROWS: 4 };
  const kernels = {
    plain: kernel(file, entry, tall),
    vec4: kernel(file, entry + "4", tall),
    group: kernel(file, entry, wide),
    group4: kernel(file, entry + "4", wide),
  };
  return (device, rows, width, variant = rowVariant(device, width)) => {
    const perLane = variant === "plain" || width % 4 !== 0 ? 1 : 4;
    return {
      kernel: kernels[variant === "group" && perLane === 4 ? "group4" : variant],
      perLane,
      grid: spread(Math.ceil(rows / (variant === "group" ? wide : tall).ROWS)),
    };
  };
}

/** A grid of `groups` workgroups, over two axes where one is too short (65,535). */
export function spread(groups: number): [number, number] {
  const y = Math.ceil(groups / 65_535);
  return [Math.ceil(groups / y), y];
}
