/** Tensors: a shape over a stretch of one rank's memory. */
import { UserError } from "./errors.ts";
import type { Device, View } from "./gpu/device.ts";
import type { DType } from "./gpu/kernel.ts";
import { fromHalf, toHalf } from "./half.ts";
import { alignment, type Category } from "./memory.ts";
import { described } from "./rules.ts";

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

function expectAxes(caller: string, shape: readonly number[]): void {
  for (const length of shape) {
    if (Number.isSafeInteger(length) && length >= 0) continue;
    throw new UserError(`${caller}: shape [${shape}] has an axis of ${length}; axes must be whole numbers, 0 or more`);
  }
}

function expectData(caller: string, shape: readonly number[], dtype: DType, data: Float32Array | Uint32Array): void {
  const right = dtype === "u32" ? Uint32Array : Float32Array;
  if (!(data instanceof right)) {
    throw new UserError(`${caller}: the data of a ${dtype} tensor must be a ${right.name}, not ${described(data)}`);
  }
  if (data.length !== sizeOf(shape)) {
    throw new UserError(`${caller}: shape [${shape}] has ${sizeOf(shape)} elements, the data ${data.length}`);
  }
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** Bytes of a dense tensor. */
export function bytesOf(shape: readonly number[], dtype: DType): number {
  return sizeOf(shape) * (dtype === "f16" ? 2 : 4);
}

/**
 * A tensor with undefined content.
 *
 * @throws {UserError} Unless every axis is a whole number, 0 or more.
 */
export function empty(device: Device, shape: readonly number[], category: Category, dtype: DType = "f32"): Tensor {
  expectAxes("empty", shape);
  const bytes = bytesOf(shape, dtype);
  return { device, storage: device.allocate(bytes, category), offset: 0, bytes, shape, dtype };
}

/**
 * A tensor with the content of `data`, whose length is the number of elements: floats, perhaps stored as "f16", or u32.
 *
 * @throws {UserError} When the shape has another number of elements, or `data` is of another type than `dtype`.
 */
export function fromArray(
  device: Device,
  shape: readonly number[],
  data: Float32Array | Uint32Array,
  category: Category,
  dtype: DType = data instanceof Uint32Array ? "u32" : "f32",
): Tensor {
  expectAxes("fromArray", shape);
  expectData("fromArray", shape, dtype, data);
  const tensor = empty(device, shape, category, dtype);
  writeArray(tensor, data);
  return tensor;
}

/**
 * Gives a tensor new content, as many elements as it has; an f16 tensor takes the nearest numbers it can hold.
 *
 * @throws {UserError} On another number of elements, or floats for u32 and the other way round.
 */
export function writeArray(tensor: Tensor, data: Float32Array | Uint32Array): void {
  expectData("writeArray", tensor.shape, tensor.dtype, data);
  if (tensor.dtype !== "f16") return tensor.device.write(tensor, data);
  const halves = new Uint16Array(Math.ceil(data.length / 2) * 2); // writes take whole words
  halves.set(toHalf(data as Float32Array));
  tensor.device.write(tensor, halves);
}

/**
 * The content of an f32 or f16 tensor, once everything recorded before has run.
 *
 * @throws {UserError} For a u32 tensor, whose words are no floats.
 */
export async function toArray(tensor: Tensor): Promise<Float32Array> {
  if (tensor.dtype === "u32") {
    throw new UserError(
      "toArray: a u32 tensor holds no floats; `new Uint32Array(await tensor.device.read(tensor))` reads it",
    );
  }
  const bytes = await tensor.device.read(tensor);
  return tensor.dtype === "f16" ? fromHalf(new Uint16Array(bytes)) : new Float32Array(bytes);
}

/**
 * A tensor that shares the memory of `tensor` from `byteOffset` on, and holds a reference of its own to it.
 * The offset must be a multiple of 256, or no kernel could be given the view.
 *
 * @throws {UserError} On another offset, or where the view does not lie within the tensor.
 */
export function view(tensor: Tensor, shape: readonly number[], byteOffset = 0): Tensor {
  expectAxes("view", shape);
  const bytes = bytesOf(shape, tensor.dtype);
  const offset = tensor.offset + byteOffset;
  if (!(byteOffset >= 0) || offset % alignment !== 0 || byteOffset + bytes > tensor.bytes) {
    throw new UserError(
      `view: ${tensor.dtype} [${shape}] at byte ${byteOffset} must lie in the tensor's ${tensor.bytes} bytes, ` +
        `and start at a multiple of ${alignment}`,
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
