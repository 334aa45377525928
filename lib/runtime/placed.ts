/** A stage of a model on the device that runs it. */
import type { Device } from "../gpu/device.ts";
import { type BufferBlock, placeBuffers, releaseBuffers } from "../layers/buffers.ts";
import type { Layer } from "../layers/layer.ts";
import { type Parameter, type ParameterBlock, placeParameters, releaseParameters } from "../layers/parameter.ts";

/** A stage, placed. */
export interface PlacedStage {
  readonly device: Device;
  /** The stage's layers as one. */
  readonly layer: Layer;
  readonly blocks: readonly ParameterBlock[];
  /** The layers' running statistics and the like; none where no layer has any. */
  readonly buffers: BufferBlock | undefined;
  parameter(parameter: Parameter): Parameter;
  release(): void;
}

/** Puts a stage, its layers as one, on its device, with fresh parameters and state; see `placeParameters` for the rest. */
export function placeStage(
  layer: Layer,
  device: Device,
  seed: number,
  originals?: ReadonlyMap<string, string>,
  dtype: "f32" | "f16" = "f32",
): PlacedStage {
  const blocks = placeParameters(layer.parameters, device, seed, originals, dtype);
  const buffers = placeBuffers(layer.buffers ?? [], device);
  return {
    device,
    layer,
    blocks,
    buffers,
    parameter: (parameter) => parameter,
    release() {
      releaseParameters(layer.parameters, blocks);
      releaseBuffers(layer.buffers ?? [], buffers);
    },
  };
}
