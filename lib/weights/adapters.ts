/** Adapters alone, in the folders of Hugging Face's PEFT. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { writeOutput } from "../output.ts";
import { expectValue, string } from "../rules.ts";
import { companyOf } from "../runtime/elsewhere.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { shown } from "../text.ts";
import { adaptersOf } from "./adapter_values.ts";
import { finite, heldInHalves, namedTensors, readTensors } from "./checkpoint.ts";
import { referenceModel } from "./families.ts";
import { openTensorFile, writeTensorFile } from "./safetensors.ts";
import { alike, readSaid } from "./said.ts";

/** The files of a folder, as PEFT names them. */
export const adapterFiles = { weights: "adapter_model.safetensors", configuration: "adapter_config.json" } as const;

/**
 * Writes a pipeline's adapters (`lora`, `loraModel`) to a folder, as PEFT does: `adapter_model.safetensors` and
 * `adapter_config.json`. The folder is made where there is none. `PeftModel.from_pretrained(base, folder)` puts them beside the
 * projections of Hugging Face's model of the same family; of a model of one's own they have its projections' names. What else is
 * trained (`trained` of `loraModel`) is not in it: `saveWeights` is for that.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, openDevices } from "twobp";
 * import { loraModel } from "twobp/models";
 * import { loadAdapters, saveAdapters } from "twobp/weights";
 *
 * const set = await openDevices(2);
 * const model = loraModel(createModel("llama-tiny"), { rank: 4, alpha: 8, targets: /attention\.[qv]$/ });
 * const pipeline = createPipeline(set, model, { optimizer: adamw() });
 * await saveAdapters(pipeline, "adapter");
 * loadAdapters(pipeline, "adapter");
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} When the model has no adapters, they are not all of one rank and alpha, a value is not finite, or the folder cannot
 * be written.
 */
export async function saveAdapters(pipeline: Pipeline, folder: string): Promise<void> {
  expectValue("A path", folder, string);
  const { model } = pipeline;
  const { rank, alpha } = kindOf("saveAdapters", model);
  const { adapters } = referenceModel(model);
  const named = new Map(
    [...await pipeline.parameters()].filter(([name]) => adapters.some((each) => each.parameter === name)),
  );
  const values = finite([named], folder, model);
  const modules = adapters.map(({ name }) => name.replace(/^base_model\.model\.|\.lora_[AB]\.weight$/g, ""));
  const said = {
    peft_type: "LORA",
    task_type: model.task === "next-token" ? "CAUSAL_LM" : null,
    base_model_name_or_path: null,
    r: rank,
    lora_alpha: alpha,
    target_modules: [...new Set(modules)],
    ...{
      lora_dropout: 0,
      bias: "none",
      fan_in_fan_out: false,
      use_rslora: false,
      use_dora: false,
      inference_mode: true,
    },
  };
  const tensors = namedTensors(adapters, values, heldInHalves(pipeline));
  await companyOf(pipeline).once(() =>
    Promise.resolve().then(() => {
      try {
        mkdirSync(folder, { recursive: true });
      } catch (error) {
        throw new UserError(`Cannot write ${folder}: ${fileProblem(error)}`);
      }
      writeTensorFile(join(folder, adapterFiles.weights), tensors);
      writeOutput(join(folder, adapterFiles.configuration), JSON.stringify(said, null, 2) + "\n");
    })
  );
}

/**
 * Loads adapters from a folder of {@link saveAdapters} or of PEFT into a pipeline, whose adapters change only after all of it has been
 * read; everything else stays what it is.
 *
 * @throws {UserError} When a file is missing or damaged, does not have exactly the adapters of the model, or is of another rank, alpha
 * or kind (DoRA, rsLoRA, trained biases). Nothing has changed then.
 */
export function loadAdapters(pipeline: Pipeline, folder: string): void {
  expectValue("A path", folder, string);
  const { model } = pipeline;
  const kind = kindOf("loadAdapters", model);
  compare(join(folder, adapterFiles.configuration), model, kind);
  const path = join(folder, adapterFiles.weights), file = openTensorFile(path);
  try {
    const values = readTensors(file, path, model, referenceModel(model).adapters, { rename: (name) => name });
    pipeline.setParameters(values, { partial: true });
  } finally {
    file.close();
  }
}

/** What PEFT has one of for all adapters of a folder. */
interface Kind {
  readonly rank: number;
  readonly alpha: number;
}

function kindOf(owner: string, model: Model): Kind {
  const [first, ...others] = adaptersOf(model);
  if (!first) {
    const names = parametersOf(model).slice(0, 3).map(({ name }) => name).join(", ");
    throw new UserError(
      `${owner}: ${model.name} has no adapters, see lora() and loraModel(); its parameters are ${names} ...`,
    );
  }
  const other = others.find(({ rank, alpha }) => rank !== first.rank || alpha !== first.alpha);
  if (!other) return first;
  const [a, b] = [first, other].map(({ projection, rank, alpha }) =>
    `${projection} has rank ${rank} and alpha ${alpha}`
  );
  throw new UserError(`${owner}: a folder has adapters of one rank and alpha, and ${a}, ${b}`);
}

/** What only other kinds of adapters have: here it must be left out, null, false or empty. */
const others = [
  ...["use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "trainable_token_indices"],
  ...["rank_pattern", "alpha_pattern", "target_parameters", "layer_replication", "alora_invocation_tokens"],
  ...["arrow_config", "kasa_config", "velora_config"],
];

/** Refuses adapters that the model would compute something else with. Where nothing is said, PEFT takes 8 for rank and alpha. */
function compare(path: string, model: Model, { rank, alpha }: Kind): void {
  const { json } = readSaid(path);
  const said = (name: string) => Object.hasOwn(json, name) ? json[name] ?? undefined : undefined;
  const differing = [
    ...[["peft_type", undefined, "LORA"], ["r", 8, rank], ["lora_alpha", 8, alpha], ["bias", "none", "none"]] as const,
    ...others.map((name) => [name, undefined, undefined] as const),
  ].flatMap(([name, unsaid, right]) => {
    const value = said(name) ?? unsaid;
    if (right === undefined ? isNothing(value) : alike(value, right)) return [];
    return [`${name} is ${shown(JSON.stringify(value) ?? "not said", 100)}, not ${JSON.stringify(right ?? null)}`];
  });
  // PiSSA and others start from a base that they have changed.
  const start = said("init_lora_weights") ?? true;
  if (![true, false, "gaussian"].includes(start as boolean | string)) {
    differing.push(
      `init_lora_weights is ${shown(JSON.stringify(start), 100)}, which goes with weights of another base`,
    );
  }
  if (differing.length === 0) return;
  throw new UserError(`${path} is of other adapters than those of ${model.name}: ${differing.join("; ")}`);
}

function isNothing(value: unknown): boolean {
  return value === undefined || value === false ||
    (typeof value === "object" && value !== null && Object.keys(value).length === 0);
}
