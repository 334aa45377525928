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
import { sizeOf, type Tensor } from "../tensor.ts";
import { type Candidate, defineOperation, type Operation, type OperationSpec, roughly } from "./choice.ts";
import { rowsOf, widthOf } from "./shapes.ts";
import { usual } from "./usual.ts";

/**
 * `plain`: one invocation a row, element by element, the reference; `vec4`: the same, four elements a load, for widths
 * that divide by 4; `group`: neighbouring invocations on neighbouring elements, and a reduction in workgroup memory where
 * a row is summed up.
 */
export type RowVariant = "plain" | "vec4" | "group";

/** The variant for rows of `width` elements on a device that nothing was measured on. */
export function usualVariant({ kind }: Pick<GpuInfo, "kind">, width: number): RowVariant {
  return usual[kind].rows.find((each) => each !== "vec4" || width % 4 === 0) as RowVariant;
}

/** An operation whose problem is the list of its arguments, the tensors that are written first. */
export interface ListSpec<Arguments extends readonly unknown[]>
  extends Pick<OperationSpec<Arguments>, "flops" | "bytes" | "prepare"> {
  /** The name of the function that runs it. */
  readonly name: string;
  /** How many arguments are written, or which tensors. */
  readonly outputs: number | OperationSpec<Arguments>["outputs"];
}

function outputsOf<Arguments extends readonly unknown[]>({ outputs }: ListSpec<Arguments>) {
  return typeof outputs === "function"
    ? outputs
    : (problem: Arguments) => problem.slice(0, outputs) as unknown as Tensor[];
}

/** What {@link rowOperation} is given. */
export interface RowOperationSpec<Arguments extends readonly unknown[]> extends ListSpec<Arguments> {
  /** Which argument has the rows that decide how the work is shared out. */
  readonly rows: number;
  /** Whether `group` is `vec4`, or `plain`, by another name and left out; false by default. */
  readonly ungrouped?: boolean;
  /** Records one variant. */
  record(variant: RowVariant, ...problem: Arguments): void;
}

/** An operation whose candidates are the row variants. */
export function rowOperation<Arguments extends readonly unknown[]>(
  { name, outputs, rows, ungrouped = false, record, ...spec }: RowOperationSpec<Arguments>,
): Operation<Arguments> {
  const rowsTensor = (problem: Arguments) => problem[rows] as Tensor;
  const candidate = (variant: RowVariant): Candidate<Arguments> => ({
    name: variant,
    supports: (_, problem) => variant !== "vec4" || widthOf(rowsTensor(problem)) % 4 === 0,
    record: (problem) => record(variant, ...problem),
  });
  return defineOperation({
    ...spec,
    name,
    candidates: [candidate("plain"), candidate("vec4"), ...ungrouped ? [] : [candidate("group")]],
    classOf(problem) {
      const tensor = rowsTensor(problem), width = widthOf(tensor);
      return `${roughly(rowsOf(tensor), width)} ${dtypesOf(problem)}${width % 4 === 0 ? "" : " odd"}`;
    },
    rule: ({ kind }) => ungrouped ? ["vec4", "plain"] : usual[kind].rows,
    outputs: outputsOf({ name, outputs }),
  });
}

/** What {@link singleOperation} is given. */
export interface SingleOperationSpec<Arguments extends readonly unknown[]> extends ListSpec<Arguments> {
  /** `file:entry` of its kernel in `kernels/`. */
  readonly kernel: string;
  /** Records it. */
  record(...problem: Arguments): void;
}

/** An operation that is computed in one way: benchmarks show it, calibration has nothing to choose. */
export function singleOperation<Arguments extends readonly unknown[]>(
  { name, kernel, outputs, record, ...spec }: SingleOperationSpec<Arguments>,
): Operation<Arguments> {
  return defineOperation<Arguments>({
    ...spec,
    name,
    candidates: [{ name: kernel, supports: () => true, record: (problem) => record(...problem) }],
    classOf(problem) {
      const largest = problem.filter(isTensor).reduce((a, b) => sizeOf(b.shape) > sizeOf(a.shape) ? b : a);
      return `${roughly(rowsOf(largest), widthOf(largest))} ${dtypesOf(problem)}`;
    },
    rule: () => kernel,
    outputs: outputsOf({ name, outputs }),
  });
}

/** Element types, and what arguments say in words, as "tanh". */
function dtypesOf(problem: readonly unknown[]): string {
  return problem.flatMap((each) => isTensor(each) ? [each.dtype] : typeof each === "string" ? [each] : []).join(" ");
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && "storage" in value;
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
  return (device, rows, width, variant = usualVariant(device.gpu.info, width)) => {
    const perLane = variant === "plain" || width % 4 !== 0 ? 1 : 4;
    return {
      kernel: kernels[variant === "group" && perLane === 4 ? "group4" : variant],
      perLane,
      grid: spread(Math.ceil(rows / (variant === "group" ? wide : tall).ROWS)),
    };
  };
}

/** The most workgroups along an axis of a grid: what every WebGPU device allows. A test lowers it, so that small tensors need several axes. */
export const axis = { most: 65_535 };

/** A grid of `groups` workgroups, over two axes where one is too short (65,535). Its kernel counts `x + y * num_workgroups.x`. */
export function spread(groups: number): [number, number] {
  const y = Math.ceil(groups / axis.most);
  return [Math.ceil(groups / y), y];
}

/** Calls `record` for so many layers of a grid, along z, as one dispatch may have, until all `count` have had their turn. */
export function inLayers(count: number, record: (first: number, layers: number) => void): void {
  for (let first = 0; first < count; first += axis.most) record(first, Math.min(axis.most, count - first));
}
