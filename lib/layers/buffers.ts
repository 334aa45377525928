/**
 * State of layers that no gradient trains, running statistics for example: it is saved with the parameters, and no optimizer
 * sees it. A forward moves it on, so each buffer is there twice: as it is, and as the last good step has left it.
 */
import { alignment, type Device } from "../gpu/device.ts";
import { bytesOf, fromArray, release, sizeOf, type Tensor, view } from "../tensor.ts";

/** One such tensor as a layer describes it, a running mean for example; see `Saved.state`. */
export interface StateBuffer {
  /** Unique in a model, parameters included. */
  readonly name: string;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** What it holds before training. */
  readonly initial: "zeros" | "ones";
}

/** Describes a buffer. */
export function stateBuffer(name: string, shape: readonly number[], initial: StateBuffer["initial"]): StateBuffer {
  return { name, shape, initial };
}

/** The tensors of one buffer on a device. */
export interface PlacedState {
  /** The values as they are. */
  readonly value: Tensor;
  /** The values after the last step that stands. */
  readonly kept: Tensor;
}

/** The buffers of a stage, side by side, so that one copy keeps or restores them all. */
export interface BufferBlock {
  /** The values as they are, flat. */
  readonly values: Tensor;
  /** The values after the last step that stands. */
  readonly kept: Tensor;
  /** The tensors of each buffer: its part of the two. */
  readonly parts: readonly PlacedState[];
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
  const values = fromArray(device, [count], initial, "parameters");
  const kept = fromArray(device, [count], initial, "parameters");
  const parts = buffers.map(({ shape }, index): PlacedState => {
    const part = (whole: Tensor) => view(whole, shape, bytesOf([starts[index]], "f32"));
    return { value: part(values), kept: part(kept) };
  });
  return { values, kept, parts };
}

/** Gives a placed buffer new values, which no failure of a later step takes back. */
export function writeBuffer({ value, kept }: PlacedState, values: Float32Array): void {
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
export function releaseBuffers({ values, kept, parts }: BufferBlock): void {
  for (const part of parts) release(part.value, part.kept);
  release(values, kept);
}
