/**
 * Models: chains of layers that a pipeline cuts into stages. Four families by name or by their sizes, and what a model is.
 *
 * A model is a description without a tensor: each pipeline that it is given to makes parameters of its own.
 *
 * ```ts
 * import { countParameters, createModel, llama } from "twobp/models";
 *
 * console.log(countParameters(createModel("llama-7b"))); // 6738415616
 * const mine = llama("mine", { vocabulary: 256, width: 64, blocks: 2, heads: 2, hidden: 176, length: 32 });
 * console.log(mine.layers.length); // 6: a pipeline may cut between any two
 * ```
 *
 * @module
 */
export { bert, type BertConfiguration, bertConfigurations } from "./bert.ts";
export { frozenModel } from "./frozen_model.ts";
export { defineModel, type Inputs, type ModelDefinition } from "./define_model.ts";
export { llama, type LlamaConfiguration, llamaConfigurations } from "./llama.ts";
export { loraModel, type LoraModelOptions } from "./lora_model.ts";
export { mamba, type MambaConfiguration, mambaConfigurations } from "./mamba.ts";
export { resnet, type ResnetConfiguration, resnetConfigurations } from "./resnet.ts";
export { type BatchShape, countParameters, type Model, parametersOf, type Task } from "./model.ts";
export { createModel, modelNames } from "./registry.ts";
export type { SideInput, SideInputs } from "./side_inputs.ts";
