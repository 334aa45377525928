/** Tensors: a shape over a stretch of one rank's memory. */
import { alignment, type Device, type View } from "./gpu/device.ts";
import type { DType } from "./gpu/kernel.ts";
import type { Category } from "./gpu/ledger.ts";
import { fromHalf, toHalf } from "./half.ts";

export type { DType };

/** A dense, row-major tensor. Made by {@link empty}, {@link fromArray} or {@link view}; given back by {@link release}. */
export interface Tensor extends View {
  /** Where it lives. */
  readonly device: Device;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** Element type; "f16" is for storage, kernels compute in f32. */
  readonly dtype: DType;
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** Bytes of a dense tensor. */
export function bytesOf(shape: readonly number[], dtype: DType): number {
  return sizeOf(shape) * (dtype === "f16" ? 2 : 4);
}

/** A tensor with undefined content. */
export function empty(device: Device, shape: readonly number[], category: Category, dtype: DType = "f32"): Tensor {
  const bytes = bytesOf(shape, dtype);
  return { device, storage: device.allocate(bytes, category), offset: 0, bytes, shape, dtype };
}

/** A tensor with the content of `data`, whose length is the number of elements; numbers may be stored as "f16". */
export function fromArray(
  device: Device,
  shape: readonly number[],
  data: Float32Array | Uint32Array,
  category: Category,
  dtype: DType = data instanceof Uint32Array ? "u32" : "f32",
): Tensor {
  if (data.length !== sizeOf(shape)) {
    throw new Error(`fromArray: shape [${shape}] has ${sizeOf(shape)} elements, the data ${data.length}`);
  }
  const tensor = empty(device, shape, category, dtype);
  writeArray(tensor, data);
  return tensor;
}

/** Gives a tensor new content, as many elements as it has; an f16 tensor takes the nearest numbers it can hold. */
export function writeArray(tensor: Tensor, data: Float32Array | Uint32Array): void {
  if (tensor.dtype !== "f16") return tensor.device.write(tensor, data);
  const halves = new Uint16Array(Math.ceil(data.length / 2) * 2); // writes take whole words
  halves.set(toHalf(data as Float32Array));
  tensor.device.write(tensor, halves);
}

/** The content of an f32 or f16 tensor, once everything recorded before has run. */
export async function toArray(tensor: Tensor): Promise<Float32Array> {
  const bytes = await tensor.device.read(tensor);
  return tensor.dtype === "f16" ? fromHalf(new Uint16Array(bytes)) : new Float32Array(bytes);
}

/**
 * A tensor that shares the memory of `tensor` from `byteOffset` on, and holds a reference of its own to it.
 * The offset must be a multiple of 256, or no kernel could be given the view.
 */
export function view(tensor: Tensor, shape: readonly number[], byteOffset = 0): Tensor {
  const bytes = bytesOf(shape, tensor.dtype);
  const offset = tensor.offset + byteOffset;
  if (offset % alignment !== 0 || offset + bytes > tensor.storage.bytes) {
    throw new Error(
      `view: shape [${shape}] at byte ${offset} does not lie in ${tensor.storage.bytes} bytes at a multiple of ${alignment}`,
    );
  }
  tensor.device.pool.retain(tensor.storage);
  return { device: tensor.device, storage: tensor.storage, offset, bytes, shape, dtype: tensor.dtype };
}

/** Another reference to the same tensor, to be released on its own. */
export function retain(tensor: Tensor): Tensor {
  tensor.device.pool.retain(tensor.storage);
  return tensor;
}

/** Gives up one reference to each tensor's memory. */
export function release(...tensors: readonly (Tensor | undefined)[]): void {
  for (const tensor of tensors) if (tensor) tensor.device.pool.release(tensor.storage);
}

/**
 * Merges micro-batches whose tensors follow one another in memory: neighbouring slots become one longer tensor along the
 * first axis, so that one kernel serves them all. Each row of `rows` holds the tensors of one micro-batch; two rows are
 * merged only where all their tensors touch. The results hold no references; they are good as long as the tensors given.
 */
export function joinAdjacent<Row extends readonly Tensor[]>(rows: readonly Row[]): Row[] {
  const joined: Row[] = [];
  for (const row of rows) {
    const last = joined[joined.length - 1];
    if (last && row.every((tensor, column) => follows(last[column], tensor))) {
      joined[joined.length - 1] = row.map((tensor, column) => extended(last[column], tensor)) as unknown as Row;
    } else joined.push(row);
  }
  return joined;
}

function follows(first: Tensor, second: Tensor): boolean {
  return first.storage === second.storage && first.offset + first.bytes === second.offset;
}

function extended(first: Tensor, second: Tensor): Tensor {
  const shape = [first.shape[0] + second.shape[0], ...first.shape.slice(1)];
  return { ...first, bytes: first.bytes + second.bytes, shape };
}
