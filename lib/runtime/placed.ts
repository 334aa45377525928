/** Stages of a model on the devices that run them. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { DeviceError } from "../gpu/device_error.ts";
import type { Layer } from "../layers/layer.ts";
import type { Sums } from "../layers/sums.ts";
import { type Placed, placeLayers, type PlaceOptions } from "../layers/placed.ts";

/** A stage, placed. */
export interface PlacedStage extends Placed {
  /** Its layers as one. */
  readonly layer: Layer;
  /** Who makes the sums that only its W reads, where that is delayed. */
  readonly sums: Sums;
}

/** Puts a stage, its layers as one, on its device, with fresh parameters and state. */
export function placeStage(layer: Layer, sums: Sums, device: Device, options?: PlaceOptions): PlacedStage {
  return { layer, sums, ...placeLayers([layer], device, options) };
}

/**
 * What `place` returns, which puts something on the devices. Where it throws, what it took is given back, and no budget stays.
 *
 * @throws {UserError} Where a device refuses it: parameters and moments that exceed the budget or the device.
 */
export function placedOrUndone<Result>(devices: readonly Device[], place: () => Result): Result {
  const marks = devices.map(({ pool }) => pool.mark());
  try {
    return place();
  } catch (error) {
    devices.forEach((device, rank) => {
      device.abandon();
      device.pool.rollback(marks[rank]);
      device.pool.trim();
      device.pool.limitTo(undefined);
    });
    // A smaller model, or more ranks, would do.
    throw error instanceof DeviceError
      ? new UserError(`The model does not fit: ${error.message}`, { cause: error })
      : error;
  }
}
