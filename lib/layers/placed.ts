/** Layers on a device: what they describe becomes tensors, as often as anybody places them. */
import type { Device } from "../gpu/device.ts";
import { type BufferBlock, placeBuffers, type PlacedState, releaseBuffers, type StateBuffer } from "./buffers.ts";
import { isTrained, type Parameter } from "./parameter.ts";
import {
  type FrozenBlock,
  type ParameterBlock,
  type PlacedParameter,
  placeFrozen,
  type PlaceOptions,
  placeParameters,
  releaseFrozen,
  releaseParameters,
} from "./parameter_blocks.ts";

export type { PlaceOptions };

/** What is placed of a layer. */
export interface Placeable {
  /** Parameters, trained ones and frozen ones. */
  readonly parameters: readonly Parameter[];
  /** State that a forward moves on. */
  readonly buffers?: readonly StateBuffer[];
}

/** The tensors of some layers' parameters and state on one device. */
export interface Placed {
  /** Where they live. */
  readonly device: Device;
  /** The parameters that are trained, as an optimizer takes them; none where all are frozen. */
  readonly blocks: readonly ParameterBlock[];
  /** The parameters that are frozen. */
  readonly frozen: readonly FrozenBlock[];
  /** The state buffers; none where no layer has any. */
  readonly buffers: BufferBlock | undefined;
  /**
   * The tensors of a parameter; no new reference.
   *
   * @throws {Error} When it is none of these layers'.
   */
  parameter(parameter: Parameter): PlacedParameter;
  /**
   * The tensors of a state buffer; no new reference.
   *
   * @throws {Error} When it is none of these layers'.
   */
  state(buffer: StateBuffer): PlacedState;
  /** Gives all of them back. */
  release(): void;
}

/**
 * Gives layers parameters with their initial values, gradients that are zero, and their state. The layers stay descriptions, and
 * can be placed any number of times at once: each {@link Placed} trains by itself.
 */
export function placeLayers(
  layers: readonly Placeable[],
  device: Device,
  options: PlaceOptions = {},
): Placed {
  const described = layers.flatMap((layer) => layer.buffers ?? []);
  const all = layers.flatMap((layer) => layer.parameters);
  const blocks = placeParameters(all.filter(isTrained), device, options);
  const frozen = placeFrozen(all.filter((each) => !isTrained(each)), device, options);
  const buffers = placeBuffers(described, device);
  const parameters = new Map<Parameter, PlacedParameter>();
  for (const block of [...blocks, ...frozen]) {
    block.parameters.forEach((each, index) => parameters.set(each, block.parts[index]));
  }
  const states = new Map(described.map((each, index) => [each, buffers!.parts[index]]));
  const find = <Described extends { readonly name: string }, Tensors>(
    tensors: ReadonlyMap<Described, Tensors>,
    described: Described,
  ): Tensors => {
    const found = tensors.get(described);
    if (found) return found;
    throw new Error(`"${described.name}" is not placed: it is of none of the layers that rank ${device.rank} has here`);
  };
  return {
    device,
    blocks,
    frozen,
    buffers,
    parameter: (parameter) => find(parameters, parameter),
    state: (buffer) => find(states, buffer),
    release() {
      releaseParameters(blocks);
      releaseFrozen(frozen);
      if (buffers) releaseBuffers(buffers);
      parameters.clear();
      states.clear();
    },
  };
}
