/** Tensors: a shape over a stretch of one rank's memory. */
import { alignment, type Device, type View } from "./gpu/device.ts";
import type { Category } from "./gpu/ledger.ts";

/** Element types; both take 4 bytes. */
export type DType = "f32" | "u32";

/** A dense, row-major tensor. Made by {@link empty}, {@link fromArray} or {@link view}; given back by {@link release}. */
export interface Tensor extends View {
  /** Where it lives. */
  readonly device: Device;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** A tensor with undefined content. */
export function empty(device: Device, shape: readonly number[], category: Category, dtype: DType = "f32"): Tensor {
  const bytes = sizeOf(shape) * 4;
  return { device, storage: device.allocate(bytes, category), offset: 0, bytes, shape, dtype };
}

/** A tensor with the content of `data`, whose length is the number of elements. */
export function fromArray(
  device: Device,
  shape: readonly number[],
  data: Float32Array | Uint32Array,
  category: Category,
): Tensor {
  if (data.length !== sizeOf(shape)) {
    throw new Error(`fromArray: shape [${shape}] has ${sizeOf(shape)} elements, the data ${data.length}`);
  }
  const tensor = empty(device, shape, category, data instanceof Uint32Array ? "u32" : "f32");
  device.write(tensor, data);
  return tensor;
}

/** The content of an f32 tensor, once everything recorded before has run. */
export async function toArray(tensor: Tensor): Promise<Float32Array> {
  return new Float32Array(await tensor.device.read(tensor));
}

/**
 * A tensor that shares the memory of `tensor` from `byteOffset` on, and holds a reference of its own to it.
 * The offset must be a multiple of 256, or no kernel could be given the view.
 */
export function view(tensor: Tensor, shape: readonly number[], byteOffset = 0): Tensor {
  const bytes = sizeOf(shape) * 4;
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
