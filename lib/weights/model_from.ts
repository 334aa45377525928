/** Models as their `config.json` describes them. */
import { basename, join, resolve } from "node:path";
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { described, expectFields, expectValue, optional, positive, type Rules, string, whole } from "../rules.ts";
import { quoted } from "../text.ts";
import { families } from "./families.ts";
import type { Family } from "./reference.ts";
import { find, readSaid, type Said } from "./said.ts";

/** What a `config.json` does not say of a model. */
export interface ModelFromOptions {
  /** Tokens in a sequence; by default 2048, or as many as the model was made for (`max_position_embeddings`) if those are fewer. */
  readonly length?: number;
  /** Of a BERT, the token that stands where one is masked; by default 103, as in Google's vocabularies, or the last of a smaller one. */
  readonly mask?: number;
}

const rules: Rules<ModelFromOptions> = { length: optional(positive), mask: optional(whole(0)) };

const usualLength = 2048;

/**
 * The model that Hugging Face's `config.json` in a folder describes: LLaMa, Mistral without a window, Qwen 2, BERT with its
 * masked-token head, or Mamba. What is left out there is what transformers takes for it. The model is called as the folder, and has
 * no weights yet: a pipeline starts it with random ones, and {@link loadWeights} takes those of the same folder.
 *
 * ```ts
 * import { createPipeline, loadWeights, openDevices, sgd } from "twobp";
 * import { modelFrom } from "twobp/weights";
 *
 * const set = await openDevices(2);
 * const model = modelFrom("Llama-3.2-1B", { length: 512 });
 * const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }) });
 * loadWeights(pipeline, "Llama-3.2-1B");
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} When there is no such file, or it asks for what is not computed here (a sliding window, another scaling of
 * positions than Llama 3's, another activation, a quantization ...): each of these is named, and what it would have to be.
 */
export function modelFrom(folder: string, options: ModelFromOptions = {}): Model {
  expectValue("modelFrom(): the folder", folder, string);
  expectFields("modelFrom()", options, rules);
  const said = readSaid(join(folder, "config.json"));
  const family = familyOf(said);
  const values = valuesOf(said, family);
  const { length = Math.min(usualLength, (values.positions ?? Infinity) as number), mask } = options;
  let model: Model;
  try {
    model = family.make!(basename(resolve(folder)), { type: said.type as string, values, length, mask });
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${said.where}: ${error.message}`) : error;
  }
  if (mask === undefined || model.task === "masked-token") return model;
  throw new UserError(`modelFrom(): mask ${mask} must be left out, ${model.name} masks no tokens`);
}

function familyOf({ where, type }: Said): Family {
  const family = families.find(({ types }) => types.includes(type as string));
  if (family) return family;
  const right = families.flatMap(({ types }) => types).map(quoted).join(", ");
  throw new UserError(`${where}: model_type must be one of ${right}, not ${described(type)}`);
}

/** The settings by field. */
function valuesOf(said: Said, family: Family): Record<string, unknown> {
  const faults: string[] = [];
  const values: Record<string, unknown> = {};
  for (const setting of family.settings(said.type as string)) {
    const { name, value, unsaid } = find(said, setting);
    if (!setting.rule.accepts(value)) {
      const there = `${described(value ?? null)}${unsaid ? ", which it is by default" : ""}`;
      faults.push(`${name} must be ${setting.rule.right}, not ${there}`);
    } else if (setting.field) values[setting.field] = value;
  }
  if (faults.length) throw new UserError(`${said.where}: ${faults.join("; ")}`);
  return values;
}
