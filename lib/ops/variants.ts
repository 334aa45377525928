/**
 * Kernels that come in several shapes of work, and which one a device is given.
 *
 * On a processor a row is best left to one invocation (its neighbours in the vector register take the next rows), and
 * a barrier costs more than a row; a GPU wants a workgroup for each row.
 */
import type { Device } from "../gpu/device.ts";

/**
 * `plain`: one invocation a row, element by element, the reference; `vec4`: the same, four elements a load, for widths
 * that divide by 4; `group`: one workgroup a row with a reduction in workgroup memory.
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
