/** What belongs to a model becomes tensors when it is placed on a device, and is a description again afterwards. */
import type { Tensor } from "../tensor.ts";

/** A parameter or a state buffer. */
interface Placeable {
  readonly name: string;
}

const placed = new WeakSet<Placeable>();

/** Whether it has tensors now: it is in a pipeline, and can be in no other. */
export function isPlaced(item: Placeable): boolean {
  return placed.has(item);
}

/** Gives it tensors, by the names of the fields that hold them. */
export function place(item: Placeable, tensors: Readonly<Record<string, Tensor>>): void {
  for (const [field, value] of Object.entries(tensors)) {
    Object.defineProperty(item, field, { value, configurable: true, enumerable: true });
  }
  placed.add(item);
}

/** Makes it a description: reading one of these fields is an error from now on. */
export function unplace(item: Placeable, fields: readonly string[]): void {
  for (const field of fields) {
    const get = () => {
      throw new Error(`"${item.name}" is not placed on a device: its model is in no open pipeline`);
    };
    Object.defineProperty(item, field, { get, configurable: true, enumerable: true });
  }
  placed.delete(item);
}
