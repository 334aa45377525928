/**
 * Operations on tensors, kernels of one's own, and what both need: the ground that layers stand on.
 *
 * An operation records kernels on the device of its tensors, outputs first, and returns at once; they run when the device is
 * submitted, or read. What is written must not be read by the same operation. Nothing is broadcast, and a backward is an operation
 * of its own.
 *
 * ```ts
 * import { openDevices } from "twobp";
 * import { empty, fromArray, gelu, matmul, release, toArray } from "twobp/ops";
 *
 * const set = await openDevices(1);
 * const [device] = set.devices;
 * const x = fromArray(device, [2, 3], new Float32Array([1, 2, 3, 4, 5, 6]), "activations");
 * const weight = fromArray(device, [3, 2], new Float32Array([1, 0, 0, 1, 1, 1]), "parameters");
 * const [product, y] = [1, 2].map(() => empty(device, [2, 2], "activations"));
 * matmul(product, x, weight);
 * gelu(y, product, "erf");
 * console.log(await toArray(y)); // 4, 5, 10, 11
 * release(x, weight, product, y);
 * set.close();
 * ```
 *
 * {@link kernel} makes a kernel of WGSL text, {@link defineOperation} an operation that chooses among several. Layers, which
 * have a split backward, are in `twobp/layers`.
 *
 * @module
 */
export {
  bytesOf,
  type DType,
  empty,
  fromArray,
  joinAdjacent,
  release,
  retain,
  sizeOf,
  type Tensor,
  toArray,
  view,
  writeArray,
} from "../tensor.ts";

export { type Kernel, kernel, type KernelText } from "../gpu/kernel.ts";
export type { ParameterValues } from "../gpu/parameters.ts";
export { lanes, strides } from "./elementwise.ts";
export { type Element, expectShape, inVectors, rowsOf, widthOf } from "./shapes.ts";

export {
  type AnyOperation,
  type Candidate,
  type Choices,
  defineOperation,
  type Observed,
  type Operation,
  operations,
  type OperationSpec,
  roughly,
  setChoices,
} from "./choice.ts";
export { squaredError, squaredErrorBackward } from "./squared_error.ts";
export { type ListSpec, singleOperation, type SingleOperationSpec } from "./variants.ts";

export {
  attention,
  attentionBackward,
  type AttentionMasks,
  type AttentionShape,
  type AttentionWay,
  chooseAttention,
  type Kept,
  qkvWidth,
} from "./attention.ts";
export {
  batchNorm,
  batchNormBackwardInput,
  type BatchNormOptions,
  batchNormRunning,
  batchNormSums,
  type ColumnStatistics,
  type RunningStatistics,
} from "./batch_norm.ts";
export { addBias, columnSum, columnTotals } from "./bias.ts";
export { appendKeys, cachedAttention, type CachedShape, keptWidth } from "./cached_attention.ts";
export { takeColumns } from "./columns.ts";
export {
  causalConv,
  causalConvBackwardInput,
  causalConvBackwardWeight,
  causalConvOn,
  convTaps,
} from "./causal_conv.ts";
export { conv2d, conv2dBackwardInput, conv2dBackwardWeight, type ConvOptions } from "./conv.ts";
export { hideDocuments } from "./documents.ts";
export { dropout, type DropoutMask } from "./dropout.ts";
export { add, fill, scale } from "./elementwise.ts";
export { embedding, embeddingBackwardWeight, packIds } from "./embedding.ts";
export { gelu, geluBackward, type GeluForm } from "./gelu.ts";
export { layerNorm, layerNormBackwardInput, layerNormSums } from "./layer_norm.ts";
export { crossEntropy, crossEntropyBackward, type CrossEntropyOptions, sum, type SumOptions } from "./loss.ts";
export { matmul, matmulBatched, type MatmulOptions, type Matrices } from "./matmul.ts";
export type { Layout } from "./matmul_problem.ts";
export { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "./norm.ts";
export { averagePool, averagePoolBackward, maxPool, maxPoolBackward } from "./pool.ts";
export { addRelu, relu, reluBackward } from "./relu.ts";
export { rope, ropeBackward, type RopeScaling, type RopeShape } from "./rope.ts";
export {
  type ScanInputs,
  type ScanLeft,
  type ScanLeftInputs,
  type ScanParameters,
  scanStatesShape,
  scanSumsShape,
  selectiveScan,
  selectiveScanBackwardInput,
  selectiveScanBackwardWeight,
  selectiveScanOn,
  selectiveScanSums,
} from "./scan.ts";
export { softmax, softmaxBackward } from "./softmax.ts";
export { swiglu, swigluBackward } from "./swiglu.ts";
export { type Window, windowedShape } from "./windows.ts";

// What the signatures above name and other faces are home to.
export type { Device, TimestampSlot, View } from "../gpu/device.ts";
export type { Driver } from "../gpu/driver.ts";
export type { Implementation } from "../gpu/implementation.ts";
export type { Gpu, GpuInfo } from "../gpu/gpu.ts";
export type { DeviceKind, GpuKind } from "../gpu/kind.ts";
export type { Ledger } from "../gpu/ledger.ts";
export type { Storage } from "../gpu/pool.ts";
export type { Bytes, Category } from "../memory.ts";
