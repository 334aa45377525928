/** A slice of a model on the device that runs it. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { type BufferBlock, placeBuffers, releaseBuffers, unplaceBuffer } from "../layers/buffers.ts";
import type { Layer } from "../layers/layer.ts";
import { type ParameterBlock, placeParameters, releaseParameters, unplaceParameter } from "../layers/parameter.ts";
import { isPlaced } from "../layers/placed.ts";
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
  /** The layers' running statistics and the like; none where no layer has any. */
  readonly buffers: BufferBlock | undefined;
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
  const buffers = placeBuffers(layer.buffers ?? [], device);
  return {
    index,
    device,
    dtype,
    layer,
    blocks,
    buffers,
    release() {
      releaseParameters(layer.parameters, blocks);
      releaseBuffers(layer.buffers ?? [], buffers);
    },
  };
}

/** Refuses layers that have tensors already: two pipelines would train the same parameters without knowing of each other. */
export function expectUnplaced(model: string, layers: readonly Layer[]): void {
  for (const { parameters, buffers = [] } of layers) {
    const placed = [...parameters, ...buffers].find(isPlaced);
    if (placed) {
      throw new UserError(
        `${model} is in a pipeline already, with "${placed.name}": close that pipeline, or make the model anew`,
      );
    }
  }
}

/** Makes descriptions of layers again whose tensors are gone: placing them has failed half-way. */
export function forgetPlaced(layers: readonly Layer[]): void {
  for (const { parameters, buffers = [] } of layers) {
    for (const parameter of parameters) unplaceParameter(parameter);
    for (const buffer of buffers) unplaceBuffer(buffer);
  }
}
