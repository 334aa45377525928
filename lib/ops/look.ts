/** One look at gradients: whether they are finite, and how large they are. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { expectShape, inVectors } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

const lookKernel = kernel("look", "look");

/** The length of the report on `count` elements that {@link look} writes, by at most `most` workgroups. */
export function reportLength(device: Device, count: number, most = 1000): number {
  const groups = Math.ceil(count / 4 / 64);
  return 1 + 3 * Math.min(groups, most, device.gpu.info.software ? 16 : Infinity);
}

/**
 * Looks for the first element of `x` that is infinite or NaN, or of a magnitude of `limit`, a power of two, or more, and adds up the
 * squares of all, in one pass and to the same bits in every run: {@link readReport} says what it has found.
 * report: u32, as long as {@link reportLength} says for x or shorter by whole workgroups, and 0 before; x: f32, of any
 * shape; where its size is no multiple of 4, what lies behind it up to the next must be finite (padding that is 0).
 */
export function look(report: Tensor, x: Tensor, limit = Infinity): void {
  const groups = (sizeOf(report.shape) - 1) / 3;
  if (!Number.isInteger(groups) || groups < 1) {
    throw new UserError(`look: the report is [${report.shape}], and must be 1 and 3 for each workgroup`);
  }
  expectShape("look", "report", report, report.shape, "u32");
  expectShape("look", "x", x, x.shape);
  operation.run([report, x, limit]);
}

/** What a look has found. */
export interface Report {
  /** Index of the first element that is not finite, or too large; none where all are good. */
  readonly notFiniteAt?: number;
  /** The sum of all elements' squares, in float64; of no use where one is not finite. */
  readonly squares: number;
}

/** What a report says that {@link look} has written. */
export function readReport(words: Uint32Array): Report {
  const sums = new Float32Array(words.buffer, words.byteOffset, words.length);
  let squares = 0;
  for (let at = 1; at < words.length; at += 3) {
    squares += sums[at] + sums[at + 1] * 2 ** 152 + sums[at + 2] * 2 ** -152;
  }
  return { ...(words[0] === 0 ? {} : { notFiniteAt: ~words[0] >>> 0 }), squares };
}

const operation = singleOperation<[report: Tensor, x: Tensor, limit: number]>({
  name: "look",
  kernel: "look:look",
  outputs: 1,
  record(report, x, limit) {
    const count = Math.ceil(sizeOf(x.shape) / 4);
    // Its bits: WGSL may take an infinite f32 for anything.
    const [bits] = new Uint32Array(Float32Array.of(limit).buffer);
    const groups = (sizeOf(report.shape) - 1) / 3;
    x.device.dispatch(lookKernel, { count, limit: bits }, [report, inVectors(x)], [groups]);
  },
});
