/**
 * Layers with a split backward (2BP): those that the models are made of, and what one needs to write, combine and check others.
 *
 * A layer is a description and three functions, {@link Layer}. {@link checkGradients} says whether they are right:
 *
 * ```ts
 * import { checkGradients, gelu, linear, preNorm, rmsNorm, sequential } from "twobp/layers";
 *
 * const mlp = sequential([linear("up", 24, 96), gelu(), linear("down", 96, 24)]);
 * const block = preNorm(rmsNorm("norm", 24), mlp);
 * const { ok, rows, afterInput } = await checkGradients(block, [10, 24]);
 * console.log(`${rows.length} checks, ${ok ? "all good" : "something is wrong"}`);
 * for (const { name, shape, bytes } of afterInput) console.log(`${name} [${shape}]: ${bytes} bytes wait for W`);
 * ```
 *
 * docs/own_layer.md shows a layer with a kernel of its own, from nothing into a pipeline. A backward that is not split yet is
 * a layer too: {@link unsplit}. Tensors, kernels and operations are in `twobp/ops`; models made of layers, and pipelines
 * that train them, in `twobp`.
 *
 * @module
 */
export {
  checkGradients,
  type CheckOptions,
  type CheckRow,
  type GradientReport,
  type KeptTensor,
  type Sides,
} from "./check_gradients.ts";
export {
  addFlops,
  type ChangePart,
  expectInput,
  type Flops,
  type Layer,
  type ProjectionPart,
  type Projects,
  type Reads,
  type ResidualNorm,
  sumShape,
} from "./layer.ts";
export type { ChildOptions, Saved } from "./saved.ts";
export { frozen, frozenPart } from "./frozen.ts";
export {
  type Adapts,
  butFrozen,
  type Initial,
  isTrained,
  type Parameter,
  parameter,
  type Trainable,
} from "./parameter.ts";
export { type BufferBlock, type PlacedState, type StateBuffer, stateBuffer } from "./buffers.ts";
export type { FrozenBlock, ParameterBlock, PlacedParameter } from "./parameter_blocks.ts";
export { backwardInput, backwardWeight, forward } from "./run.ts";
export { between, composed, type Own } from "./composite.ts";
export { type Unsplit, unsplit } from "./unsplit.ts";

export { type AttentionOptions, selfAttention } from "./attention.ts";
export { batchNorm } from "./batch_norm.ts";
export { conv2d } from "./conv2d.ts";
export { dropout, type DropoutOptions, withDropout } from "./dropout.ts";
export { embedding } from "./embedding.ts";
export { gelu } from "./gelu.ts";
export { layerNorm } from "./layer_norm.ts";
export { linear, type LinearOptions } from "./linear.ts";
export { lora, type LoraOptions } from "./lora.ts";
export { mambaMixer, type MambaOptions } from "./mamba.ts";
export { averagePool, maxPool } from "./pool.ts";
export {
  type PositionedEmbedding,
  positionedEmbedding,
  type PositionedEmbeddingOptions,
} from "./positioned_embedding.ts";
export { type Recompute, recomputed } from "./recompute.ts";
export { relu } from "./relu.ts";
export { postNorm, preNorm } from "./residual.ts";
export { reshape } from "./reshape.ts";
export { rmsNorm } from "./rms_norm.ts";
export { sequential } from "./sequential.ts";
export { shortcut } from "./shortcut.ts";
export { swigluMlp, type SwigluOptions } from "./swiglu_mlp.ts";

export { createGroup, type Group, releaseGroup, slotIn } from "./group.ts";
export { type Placeable, type Placed, placeLayers, type PlaceOptions } from "./placed.ts";
export { createSaved } from "./saved.ts";
export { type Past, type Pieces, piecesOf } from "./past.ts";
export type { Reading, Sums } from "./sums.ts";

// What the signatures above name and other faces are home to.
export type { Device, TimestampSlot, View } from "../gpu/device.ts";
export type { Driver } from "../gpu/driver.ts";
export type { Implementation } from "../gpu/implementation.ts";
export type { Gpu, GpuInfo } from "../gpu/gpu.ts";
export type { DeviceKind, GpuKind } from "../gpu/kind.ts";
export type { Kernel } from "../gpu/kernel.ts";
export type { Ledger } from "../gpu/ledger.ts";
export type { ParameterValues } from "../gpu/parameters.ts";
export type { Storage } from "../gpu/pool.ts";
export type { Bytes, Category } from "../memory.ts";
export type { BatchNormOptions } from "../ops/batch_norm.ts";
export type { GeluForm } from "../ops/gelu.ts";
export type { RopeScaling } from "../ops/rope.ts";
export type { Window } from "../ops/windows.ts";
export type { Generator } from "../random.ts";
export type { DType, Tensor } from "../tensor.ts";
