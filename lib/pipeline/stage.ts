/** A slice of a model on the device that runs it. */
import type { Device } from "../gpu/device.ts";
import { placeBuffers, releaseBuffers } from "../layers/buffers.ts";
import type { Layer } from "../layers/layer.ts";
import { type ParameterBlock, placeParameters, releaseParameters } from "../layers/parameter.ts";
import { sequential } from "../layers/sequential.ts";

/** Stage `index` of a pipeline. */
export interface Stage {
  readonly index: number;
  readonly device: Device;
  /** Element type of activations and their gradients, and so of messages. */
  readonly dtype: "f32" | "f16";
  /** The stage's layers as one. */
  readonly layer: Layer;
  readonly blocks: readonly ParameterBlock[];
  release(): void;
}

/** Puts the layers of a stage on its device, with fresh parameters and state; see `placeParameters` for the rest. */
export function placeStage(
  index: number,
  layers: readonly Layer[],
  device: Device,
  seed: number,
  originals?: ReadonlyMap<string, string>,
  dtype: "f32" | "f16" = "f32",
): Stage {
  const layer = sequential(layers);
  const blocks = placeParameters(layer.parameters, device, seed, originals, dtype);
  placeBuffers(layer.buffers ?? [], device);
  return {
    index,
    device,
    dtype,
    layer,
    blocks,
    release() {
      releaseParameters(layer.parameters, blocks);
      releaseBuffers(layer.buffers ?? []);
    },
  };
}
