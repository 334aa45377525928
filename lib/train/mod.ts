/**
 * What training needs beside a model and a pipeline: batches, and optimizers.
 *
 * ```ts
 * import { textSource } from "twobp/train";
 *
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 16, seed: 1 });
 * const { samples, inputs, targets } = source.next(4); // four sequences; each token's target is the next one
 * console.log(samples, inputs.length, targets.length); // 4 64 64
 * ```
 *
 * @module
 */
export { byteVocabulary } from "../bytes.ts";
export { type Generator, generator } from "../random.ts";
export { type Batch, type BatchArray, type BatchSource, ignored, maskedTextSource, textSource } from "./data.ts";
export { type ImageFolder, imageFolder } from "./image_folder.ts";
export {
  adamw,
  type AdamWGroup,
  type AdamWOptions,
  type Optimizer,
  type OptimizerSpec,
  sgd,
  type SgdGroup,
  type SgdOptions,
} from "./optimizers.ts";
export type { Grouped, Matching, OptimizerGroup } from "./optimizer_groups.ts";
export { syntheticImages } from "./synthetic_images.ts";

// What the signatures above name and other faces are home to.
export type { Device, TimestampSlot, View } from "../gpu/device.ts";
export type { Driver } from "../gpu/driver.ts";
export type { Gpu, GpuInfo } from "../gpu/gpu.ts";
export type { Kernel } from "../gpu/kernel.ts";
export type { Ledger } from "../gpu/ledger.ts";
export type { ParameterValues } from "../gpu/parameters.ts";
export type { Storage } from "../gpu/pool.ts";
export type { Bytes, Category } from "../memory.ts";
export type { DType, Tensor } from "../tensor.ts";
