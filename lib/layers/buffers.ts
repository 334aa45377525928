/** State of layers that no gradient trains: it is saved with the parameters, and no optimizer sees it. */
import type { Device } from "../gpu/device.ts";
import { fromArray, release, sizeOf, type Tensor } from "../tensor.ts";

/** One such tensor, a running mean for example. `value` exists once its stage is placed. */
export interface StateBuffer {
  /** Unique in a model, parameters included. */
  readonly name: string;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** What it holds before training. */
  readonly initial: "zeros" | "ones";
  /** The values, on the device of the stage. */
  value: Tensor;
}

/** Describes a buffer; reading its tensor before it is placed is an error. */
export function stateBuffer(name: string, shape: readonly number[], initial: StateBuffer["initial"]): StateBuffer {
  return {
    name,
    shape,
    initial,
    get value(): Tensor {
      throw new Error(`Buffer "${name}" is not placed on a device yet`);
    },
  };
}

/** Places buffers on a device with what they hold before training, counted as parameters. */
export function placeBuffers(buffers: readonly StateBuffer[], device: Device): void {
  for (const buffer of buffers) {
    const initial = new Float32Array(sizeOf(buffer.shape)).fill(buffer.initial === "ones" ? 1 : 0);
    const value = fromArray(device, buffer.shape, initial, "parameters");
    Object.defineProperty(buffer, "value", { value, configurable: true, enumerable: true });
  }
}

/** Gives back what {@link placeBuffers} took. */
export function releaseBuffers(buffers: readonly StateBuffer[]): void {
  for (const { value } of buffers) release(value);
}
