/** Looks for numbers that are none. */
import { kernel } from "../gpu/kernel.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { strides } from "./elementwise.ts";
import { expectShape, inVectors } from "./shapes.ts";
import { singleOperation } from "./variants.ts";

const findKernel = kernel("finite", "find_overflow");

/**
 * Sets `found`, u32 [1], to 1 if any element of `x` is infinite or NaN, and leaves it alone otherwise. x: f32, of any
 * shape; where its size is no multiple of 4, what lies behind it up to the next must be finite (padding that is 0).
 */
export function findOverflow(found: Tensor, x: Tensor): void {
  expectShape("findOverflow", "found", found, [1], "u32");
  expectShape("findOverflow", "x", x, x.shape);
  operation.run([found, x]);
}

const operation = singleOperation<[found: Tensor, x: Tensor]>({
  name: "findOverflow",
  kernel: "finite:find_overflow",
  outputs: 1,
  record(found, x) {
    const vectors = Math.ceil(sizeOf(x.shape) / 4);
    x.device.dispatch(findKernel, [vectors], [found, inVectors(x)], strides(x.device, vectors));
  },
});
