/** Looks for numbers that are none. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { strides } from "./elementwise.ts";
import { expectShape, inVectors } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

const findKernel = kernel("finite", "find_not_finite");

/**
 * Looks for the first element of `x` that is infinite or NaN, or of a magnitude of `limit`, a power of two, or more, and enters it
 * into `found`, u32 [1], which is 0 before: see {@link notFiniteAt}. x: f32, of any shape; where its size is no multiple of 4, what lies behind it up to the next must be
 * finite (padding that is 0).
 */
export function findNotFinite(found: Tensor, x: Tensor, limit = Infinity): void {
  expectShape("findNotFinite", "found", found, [1], "u32");
  expectShape("findNotFinite", "x", x, x.shape);
  operation.run([found, x, limit]);
}

/** The index that {@link findNotFinite} has entered, or undefined where all was finite. */
export function notFiniteAt(found: number): number | undefined {
  return found === 0 ? undefined : ~found >>> 0;
}

const operation = singleOperation<[found: Tensor, x: Tensor, limit: number]>({
  name: "findNotFinite",
  kernel: "finite:find_not_finite",
  outputs: 1,
  record(found, x, limit) {
    const vectors = Math.ceil(sizeOf(x.shape) / 4);
    // Its bits: WGSL may take an infinite f32 for anything.
    const [bits] = new Uint32Array(Float32Array.of(limit).buffer);
    x.device.dispatch(findKernel, { count: vectors, limit: bits }, [found, inVectors(x)], strides(x.device, vectors));
  },
});
