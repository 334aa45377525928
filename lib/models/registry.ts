/** Models by name. */
import { UserError } from "../errors.ts";
import { byteVocabulary } from "../train/data.ts";
import { llama, type LlamaConfiguration } from "./llama.ts";
import type { Model } from "./model.ts";

const configurations: Record<string, LlamaConfiguration> = {
  // 0.9 million parameters: a micro-batch takes milliseconds on one core.
  "llama-tiny": { vocabulary: byteVocabulary, width: 128, blocks: 4, heads: 4, hidden: 352, length: 64 },
  // 9.6 million parameters: for a small GPU.
  "llama-small": { vocabulary: byteVocabulary, width: 320, blocks: 8, heads: 5, hidden: 864, length: 128 },
};

/** Names that {@link createModel} knows. */
export const modelNames: readonly string[] = Object.keys(configurations);

/**
 * A model of text as bytes. Its parameters are placed by the pipeline it is given to: one pipeline at a time.
 *
 * @throws {UserError} On an unknown name.
 */
export function createModel(name: string): Model {
  const configuration = configurations[name];
  if (!configuration) throw new UserError(`There is no model "${name}"; there are ${modelNames.join(", ")}`);
  return llama(name, configuration);
}
