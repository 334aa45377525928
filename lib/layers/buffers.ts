/**
 * State of layers that no gradient trains, running statistics for example: it is saved with the parameters, and no optimizer
 * sees it. A forward moves it on, so each buffer is there twice: as it is, and as the last good step has left it.
 */
import { alignment, type Device } from "../gpu/device.ts";
import { bytesOf, fromArray, release, sizeOf, type Tensor, view } from "../tensor.ts";
import { place, unplace } from "./placed.ts";

/** One such tensor, a running mean for example. `value` and `kept` exist once its stage is placed. */
export interface StateBuffer {
  /** Unique in a model, parameters included. */
  readonly name: string;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** What it holds before training. */
  readonly initial: "zeros" | "ones";
  /** The values, on the device of the stage. */
  value: Tensor;
  /** The values after the last step that stands. */
  kept: Tensor;
}

/** Describes a buffer; reading its tensors before it is placed is an error. */
export function stateBuffer(name: string, shape: readonly number[], initial: StateBuffer["initial"]): StateBuffer {
  const described = { name, shape, initial } as StateBuffer;
  unplaceBuffer(described);
  return described;
}

/** Makes it a description again: its tensors are gone. */
export function unplaceBuffer(buffer: StateBuffer): void {
  unplace(buffer, ["value", "kept"]);
}

/** The buffers of a stage, side by side, so that one copy keeps or restores them all. */
export interface BufferBlock {
  readonly values: Tensor;
  readonly kept: Tensor;
}

/** Places buffers on a device with what they hold before training, counted as parameters; nothing where there are none. */
export function placeBuffers(buffers: readonly StateBuffer[], device: Device): BufferBlock | undefined {
  if (buffers.length === 0) return undefined;
  const grain = alignment / bytesOf([1], "f32");
  const starts = [0];
  for (const { shape } of buffers) starts.push(starts[starts.length - 1] + Math.ceil(sizeOf(shape) / grain) * grain);
  const count = starts[buffers.length];
  const initial = new Float32Array(count);
  for (const [index, buffer] of buffers.entries()) {
    if (buffer.initial === "ones") initial.fill(1, starts[index], starts[index] + sizeOf(buffer.shape));
  }
  const block = {
    values: fromArray(device, [count], initial, "parameters"),
    kept: fromArray(device, [count], initial, "parameters"),
  };
  for (const [index, buffer] of buffers.entries()) {
    const part = (whole: Tensor) => view(whole, buffer.shape, bytesOf([starts[index]], "f32"));
    place(buffer, { value: part(block.values), kept: part(block.kept) });
  }
  return block;
}

/** Gives a placed buffer new values, which no failure of a later step takes back. */
export function writeBuffer({ value, kept }: StateBuffer, values: Float32Array): void {
  for (const tensor of [value, kept]) tensor.device.write(tensor, values);
}

/** Records that the buffers are good as they are: a step stands. */
export function keepBuffers({ values, kept }: BufferBlock): void {
  values.device.copy(values.storage.buffer, values.offset, kept.storage.buffer, kept.offset, values.bytes);
}

/** Records that the buffers become again what they were after the last good step. */
export function restoreBuffers({ values, kept }: BufferBlock): void {
  values.device.copy(kept.storage.buffer, kept.offset, values.storage.buffer, values.offset, values.bytes);
}

/** Gives back what {@link placeBuffers} took. */
export function releaseBuffers(buffers: readonly StateBuffer[], block: BufferBlock | undefined): void {
  for (const buffer of buffers) {
    release(buffer.value, buffer.kept);
    unplaceBuffer(buffer);
  }
  if (block) release(block.values, block.kept);
}
