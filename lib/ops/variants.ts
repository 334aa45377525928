/**
 * Kernels that come in several shapes of work, and which one a device is given.
 *
 * On a processor a row is best left to one invocation (its neighbours in the vector register take the next rows), a
 * barrier costs more than a row, and starting a workgroup as much as 100 elements; a GPU wants neighbouring invocations
 * on neighbouring elements, and a workgroup for each row where a row is summed up.
 */
import type { Device } from "../gpu/device.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";

/**
 * `plain`: one invocation a row, element by element, the reference; `vec4`: the same, four elements a load, for widths
 * that divide by 4; `group`: neighbouring invocations on neighbouring elements, and a reduction in workgroup memory where
 * a row is summed up.
 */
export type RowVariant = "plain" | "vec4" | "group";

let forced: RowVariant | undefined;

/** The variant for rows of `width` elements on `device`. */
export function rowVariant(device: Device, width: number): RowVariant {
  if (forced && !(forced === "vec4" && width % 4 !== 0)) return forced;
  if (!device.gpu.info.software) return "group";
  return width % 4 === 0 ? "vec4" : "plain";
}

/** Records with one variant wherever it can serve, whatever the device would choose: for tests and benchmarks. */
export function withRowVariant(variant: RowVariant, record: () => void): void {
  const before = forced;
  forced = variant;
  try {
    record();
  } finally {
    forced = before;
  }
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
): (device: Device, rows: number, width: number) => RowKernel {
  const tall = { COLUMNS: 1, ROWS: 64 }, wide = { COLUMNS: 64, ROWS: 4 };
  const kernels = {
    plain: kernel(file, entry, tall),
    vec4: kernel(file, entry + "4", tall),
    group: kernel(file, entry, wide),
    group4: kernel(file, entry + "4", wide),
  };
  return (device, rows, width) => {
    const variant = rowVariant(device, width);
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
