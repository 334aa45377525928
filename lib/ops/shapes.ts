/** What operations ask of the shapes they are given. */
import { UserError } from "../errors.ts";
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

/** What a tensor may hold: one element type, or with "float" f32 or f16, where the kernel has both forms. */
export type Element = DType | "float";

/** Whether a tensor of `dtype` will do where `element` is needed. */
export function isElement(dtype: DType, element: Element): boolean {
  return element === "float" ? dtype !== "u32" : dtype === element;
}

/** An element in words. */
export function elementName(element: Element): string {
  return element === "float" ? "f32 or f16" : element;
}

/**
 * Throws a {@link UserError} unless `tensor` can be read as `shape`: as many elements, of the right type, and a last axis as long. A vector
 * (`shape` of one axis, as one value a row) may come with any axes.
 */
export function expectShape(
  operation: string,
  name: string,
  tensor: Tensor,
  shape: readonly number[],
  element: Element = "f32",
): void {
  const fits = isElement(tensor.dtype, element) && sizeOf(tensor.shape) === sizeOf(shape) &&
    (shape.length === 1 || widthOf(tensor) === shape[shape.length - 1]);
  if (!fits) {
    const needed = `${elementName(element)} [${shape}]`;
    throw new UserError(`${operation}: ${name} is ${tensor.dtype} [${tensor.shape}] where ${needed} is needed`);
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
