/**
 * Training: the loop, and what it needs beside a model and a pipeline: batches, optimizers, learning rates.
 *
 * ```ts
 * import { textSource } from "twobp/train";
 *
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 16, seed: 1 });
 * const { samples, inputs, targets } = source.next(4); // four sequences; each token's target is the next one
 * console.log(samples, inputs.length, targets.length); // 4 64 64
 * ```
 *
 * `train` shows them together, and docs/training.md what else there is.
 *
 * @module
 */
export { byteVocabulary } from "../bytes.ts";
export { type Generator, generator } from "../random.ts";
export {
  type Batch,
  type BatchArray,
  type BatchSource,
  ignored,
  maskedTextSource,
  type PositionedSource,
  textSource,
  type TextSourceOptions,
} from "./data.ts";
export type { SourcePosition } from "./position.ts";
export { type Corpus, type CorpusBatches, type CorpusOptions, openCorpus } from "./corpus.ts";
export type { Part } from "./held_out.ts";
export { byteTokenizer, loadTokenizer, type Tokenizer } from "./tokenizer.ts";
export { prefetched } from "./prefetch.ts";
export { type ImageFolder, imageFolder, type ImageFolderOptions } from "./image_folder.ts";
export {
  constantRate,
  cosineDecay,
  type Decay,
  inverseSquareRoot,
  type LearningRate,
  linearDecay,
  type StableDecay,
  type WarmUp,
  warmUpStableDecay,
} from "./learning_rates.ts";
export { muon, type MuonOptions, type MuonOthers } from "./muon.ts";
export {
  adamw,
  type AdamWGroup,
  type AdamWOptions,
  lion,
  type LionGroup,
  type LionOptions,
  type Moment,
  type Optimizer,
  type OptimizerMemory,
  type OptimizerSettings,
  type OptimizerSpec,
  type PlacedShape,
  sgd,
  type SgdGroup,
  type SgdOptions,
} from "./optimizers.ts";
export type { Grouped, Matching, OptimizerGroup } from "./optimizer_groups.ts";
export {
  type Checkpoint,
  lastCheckpoint,
  loadCheckpoint,
  saveCheckpoint,
  type SaveCheckpointOptions,
} from "../training/checkpoint.ts";
export { syntheticImages } from "./synthetic_images.ts";
export type { EvaluationOptions, TrainEvaluation } from "../training/evaluation.ts";
export type { SavingOptions } from "../training/saving.ts";
export {
  type EpochBatches,
  type ResumableData,
  train,
  type TrainOptions,
  type TrainResult,
  type TrainStep,
} from "../training/train.ts";
export { type GeneratedText, generateText, type GenerateTextOptions } from "../training/generate_text.ts";
