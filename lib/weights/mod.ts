/**
 * Checkpoints: safetensors with the names of the reference implementations (Hugging Face, torchvision), whatever the partition.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, loadWeights, openDevices, saveWeights } from "twobp";
 *
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * await saveWeights(pipeline, "mine.safetensors");
 * loadWeights(pipeline, "mine.safetensors");
 * pipeline.close();
 * set.close();
 * ```
 *
 * @module
 */
export { loraModelFrom } from "./adapted_from.ts";
export { loadAdapters, saveAdapters } from "./adapters.ts";
export { loadWeights, type SaveOptions, saveWeights } from "./checkpoint.ts";
export { modelFrom, type ModelFromOptions } from "./model_from.ts";
