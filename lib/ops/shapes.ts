/** What operations ask of the shapes they are given. */
import type { View } from "../gpu/device.ts";
import { type DType, sizeOf, type Tensor } from "../tensor.ts";

/** Length of a tensor's last axis. */
export function widthOf(tensor: Tensor): number {
  return tensor.shape[tensor.shape.length - 1] ?? 1;
}

/** Number of rows of a tensor: all axes but the last. */
export function rowsOf(tensor: Tensor): number {
  return sizeOf(tensor.shape.slice(0, -1));
}

/**
 * Throws unless `tensor` can be read as `shape`: as many elements, of `dtype`, and a last axis as long. A vector
 * (`shape` of one axis, as one value a row) may come with any axes.
 */
export function expectShape(
  operation: string,
  name: string,
  tensor: Tensor,
  shape: readonly number[],
  dtype: DType = "f32",
): void {
  const fits = tensor.dtype === dtype && sizeOf(tensor.shape) === sizeOf(shape) &&
    (shape.length === 1 || widthOf(tensor) === shape[shape.length - 1]);
  if (!fits) {
    throw new Error(`${operation}: ${name} is ${tensor.dtype} [${tensor.shape}] where ${dtype} [${shape}] is needed`);
  }
}

/**
 * The view of a tensor for a kernel that handles it as vec4s: its end moves up to a whole one. Every tensor starts at a
 * multiple of 256 bytes, so the bytes gained belong to nobody.
 */
export function inVectors({ storage, offset, bytes, dtype }: Tensor): View {
  const vector = dtype === "f16" ? 8 : 16;
  return { storage, offset, bytes: Math.ceil(bytes / vector) * vector, dtype };
}
