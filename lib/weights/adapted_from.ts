/** Models with the adapters that a folder of PEFT's describes. */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { loraModel } from "../models/lora_model.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { expectValue, positive, real, string } from "../rules.ts";
import { adapterFiles } from "./adapters.ts";
import { referenceModel } from "./families.ts";
import { openTensorFile } from "./safetensors.ts";
import { readSaid } from "./said.ts";

/**
 * The model with adapters beside the projections that have some in a folder of {@link saveAdapters} or of Hugging Face's PEFT, of their rank
 * and alpha; all else is frozen. A pipeline starts them with random numbers, and {@link loadAdapters} takes those of the same folder.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, openDevices } from "twobp";
 * import { loraModel } from "twobp/models";
 * import { loadAdapters, loraModelFrom, saveAdapters } from "twobp/weights";
 *
 * const set = await openDevices(2), base = createModel("llama-tiny"), optimizer = adamw();
 * const first = createPipeline(set, loraModel(base, { rank: 4, targets: /attention/ }), { optimizer });
 * await saveAdapters(first, "attentive");
 * const again = createPipeline(set, loraModelFrom(base, "attentive"), { optimizer });
 * loadAdapters(again, "attentive");
 * for (const pipeline of [first, again]) pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} When a file is missing or damaged, or has no adapter for a projection of this model. What else does not fit is found by
 * `loadAdapters`.
 */
export function loraModelFrom(model: Model, folder: string): Model {
  expectValue("loraModelFrom: the folder", folder, string);
  const { where, json } = readSaid(join(folder, adapterFiles.configuration));
  const { r: rank = 8, lora_alpha: alpha = 8 } = json; // as PEFT has them where nothing is said
  expectValue(`${where}: r`, rank, positive);
  expectValue(`${where}: lora_alpha`, alpha, real({ least: "above 0" }));
  const made = (targets: (projection: string) => boolean) =>
    loraModel(model, { rank: rank as number, alpha: alpha as number, targets });
  const path = join(folder, adapterFiles.weights), file = openTensorFile(path);
  let names: ReadonlySet<string>;
  try {
    names = new Set(file.tensors.keys());
  } finally {
    file.close();
  }
  const all = made(() => true), { adapters } = referenceModel(all);
  const stored = new Set(adapters.flatMap(({ name, parameter }) => names.has(name) ? [parameter] : []));
  const meant = new Set(parametersOf(all).flatMap(({ name, adapts }) => stored.has(name) ? [adapts!.projection] : []));
  if (meant.size > 0) return made((projection) => meant.has(projection));
  throw new UserError(
    `${path} has no adapter for a projection of ${model.name}: it has ${
      [...names].slice(0, 2).join(", ") || "nothing"
    } ...`,
  );
}
