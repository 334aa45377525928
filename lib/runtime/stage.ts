/** A slice of a model on the device that runs it. */
import type { Device } from "../gpu/device.ts";
import type { Layer } from "../layers/layer.ts";
import type { Parameter } from "../layers/parameter.ts";
import { type Placed, placeLayers, type PlaceOptions } from "../layers/placed.ts";
import { sequential } from "../layers/sequential.ts";

/** Stage `index` of a pipeline. */
export interface Stage {
  readonly index: number;
  readonly device: Device;
  /** Element type of activations and their gradients, and so of messages. */
  readonly dtype: "f32" | "f16";
  /** The stage's layers as one. */
  readonly layer: Layer;
  /** Their parameters and state on the device. */
  readonly placed: Placed;
}

/** Puts the layers of a stage on its device, with fresh parameters and state. */
export function placeStage(
  index: number,
  layers: readonly Layer[],
  device: Device,
  options: PlaceOptions = {},
): Stage {
  const layer = sequential(layers);
  return { index, device, dtype: options.dtype ?? "f32", layer, placed: placeLayers([layer], device, options) };
}

/** The stage that has a parameter, which belongs to the model. */
export function stageOf(stages: readonly Stage[], parameter: Parameter): Stage {
  return stages.find(({ layer }) => layer.parameters.includes(parameter))!;
}
