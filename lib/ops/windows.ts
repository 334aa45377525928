/** Windows that slide over images: what convolution and pooling share. */
import { UserError } from "../errors.ts";
import type { Tensor } from "../tensor.ts";
import { type Element, elementName, isElement } from "./shapes.ts";

/** A square window. */
export interface Window {
  /** Height and width. */
  readonly size: number;
  /** Pixels from one position to the next. */
  readonly stride: number;
  /** Pixels around the image that the window may also cover. */
  readonly padding: number;
}

/** Positions of the window along an axis of `length` pixels. */
export function positions(length: number, { size, stride, padding }: Window): number {
  return Math.floor((length + 2 * padding - size) / stride) + 1;
}

/**
 * Shape of what a window makes of images [samples, height, width, channels]: [samples, height', width', channels'].
 *
 * @throws {UserError} Where the window is larger than the padded image.
 */
export function windowedShape(shape: readonly number[], window: Window, channels = shape[3]): number[] {
  const [samples, height, width] = shape;
  if (shape.length !== 4 || positions(height, window) < 1 || positions(width, window) < 1) {
    const { size, padding } = window;
    throw new UserError(
      `A ${size} x ${size} window with padding ${padding} does not fit into images of shape [${shape}]`,
    );
  }
  return [samples, positions(height, window), positions(width, window), channels];
}

/** Throws unless `tensor` is images of the right type and exactly this shape. */
export function expectImages(
  operation: string,
  name: string,
  tensor: Tensor,
  shape: readonly number[],
  element: Element = "f32",
): void {
  const sameShape = tensor.shape.length === 4 && tensor.shape.every((length, i) => length === shape[i]);
  if (!sameShape || !isElement(tensor.dtype, element)) {
    const needed = `${elementName(element)} [${shape}]`;
    throw new UserError(`${operation}: ${name} is ${tensor.dtype} [${tensor.shape}] where ${needed} is needed`);
  }
}

/** Parameters of a kernel that relates images of shape `from` to their windows of shape `to`. */
export function windowParameters(from: readonly number[], to: readonly number[], { size, stride, padding }: Window) {
  return { inHeight: from[1], inWidth: from[2], outHeight: to[1], outWidth: to[2], size, stride, padding };
}
