/** A pipeline's weights in safetensors files, with the names and layouts of the reference implementations. */
import { UserError } from "../errors.ts";
import { isTrained } from "../layers/parameter.ts";
import { type Model, parametersOf } from "../models/model.ts";
import { companyOf } from "../runtime/elsewhere.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { sizeOf } from "../tensor.ts";
import { quoted } from "../text.ts";
import { expectFields, flag, optional } from "../rules.ts";
import { addAdapters, checkScales, scalesMetadata } from "./adapter_values.ts";
import { buffersOf, referenceModel } from "./families.ts";
import { shownShape } from "./header.ts";
import { type Family, fromReference, type Reference, toReference } from "./reference.ts";
import { checkReadable, type NamedTensor, type TensorFile, writeTensorFile } from "./safetensors.ts";
import { checkSettings, settingsMetadata } from "./settings.ts";
import { openCheckpoint } from "./shards.ts";

/** How weights are saved. */
export interface SaveOptions {
  /** Whether adapters are added to the weights that they are beside; false by default. */
  readonly merged?: boolean;
}

/**
 * Writes a pipeline's parameters and running statistics to one safetensors file that the reference implementation can load:
 * Hugging Face's for LLaMa (that of Qwen 2 where queries, keys and values have biases), BERT and Mamba, torchvision's for ResNet. A model
 * of one's own has its parameters' names and shapes there. All is F32, but for what mixed precision holds in f16 alone, which is
 * frozen parameters: that is F16. How the model is cut does not matter. A write that fails leaves what was at `path`. Adapters (`lora`)
 * are in the file as well, under PEFT's names; with `merged` they are added to the weights that they are beside instead, which makes a
 * checkpoint of the model without adapters.
 *
 * ```ts
 * import { createModel, createPipeline, loadWeights, openDevices, saveWeights, sgd } from "twobp";
 *
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: sgd({ learningRate: 0.1 }) });
 * await saveWeights(pipeline, "llama-tiny.safetensors");
 * loadWeights(pipeline, "llama-tiny.safetensors");
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} When the file cannot be written, a value is not finite, or there are no adapters to be merged, or one beside a tied weight.
 */
export async function saveWeights(pipeline: Pipeline, path: string, options: SaveOptions = {}): Promise<void> {
  expectFields("saveWeights", options, { merged: optional(flag) });
  const { model } = pipeline, { merged = false } = options;
  const { adapters } = referenceModel(model);
  if (merged && adapters.length === 0) throw new UserError(`saveWeights: ${model.name} has no adapters to be merged`);
  // Asked for before anything is waited for: a step in between would tear them apart.
  const values = finite(await Promise.all([pipeline.parameters(), pipeline.state()]), path, model);
  if (merged) addAdapters(values, model);
  const { tensors, metadata } = weightTensors(pipeline, values, merged);
  await companyOf(pipeline).once(() => Promise.resolve().then(() => writeTensorFile(path, tensors, metadata)));
}

/** What a file of a pipeline's weights consists of; `merged` values have its adapters already. */
export function weightTensors(
  pipeline: Pipeline,
  values: ReadonlyMap<string, Float32Array>,
  merged = false,
): { tensors: NamedTensor[]; metadata: Record<string, string> } {
  const { model } = pipeline, { family, references, adapters } = referenceModel(model);
  const written = merged ? references : [...references, ...adapters];
  return {
    tensors: namedTensors(written, values, heldInHalves(pipeline, merged)),
    metadata: { ...settingsMetadata(model, family), ...merged ? {} : scalesMetadata(model) },
  };
}

/**
 * The values by name.
 *
 * @throws {UserError} When one is not finite.
 */
export function finite(
  values: readonly ReadonlyMap<string, Float32Array>[],
  path: string,
  { name: model }: Model,
): Map<string, Float32Array> {
  const all = new Map(values.flatMap((each) => [...each]));
  for (const [name, array] of all) {
    const fault = notFinite(array);
    if (fault) throw new UserError(`Nothing is saved to ${path}: ${quoted(name)} of ${model} has ${fault}`);
  }
  return all;
}

/** Names of the parameters that f16 holds as they are: in mixed precision those that are frozen, and not changed by adapters. */
export function heldInHalves({ model, precision }: Pipeline, merged = false): Set<string> {
  if (precision !== "mixed") return new Set();
  const all = parametersOf(model), changed = new Set(merged ? all.map(({ adapts }) => adapts?.weight) : []);
  return new Set(all.filter((each) => !isTrained(each) && !changed.has(each.name)).map(({ name }) => name));
}

/** What is written of these: F16 of `halves`, parameters by name, F32 of the others. */
export function namedTensors(
  references: readonly Reference[],
  values: ReadonlyMap<string, Float32Array>,
  halves: ReadonlySet<string>,
): NamedTensor[] {
  return references.map((reference) => ({
    name: reference.name,
    shape: reference.shape,
    dtype: halves.has(reference.parameter) ? "F16" : "F32",
    values: () => toReference(reference, values.get(reference.parameter)!),
  }));
}

/**
 * Loads a checkpoint, ours or the reference implementation's, into a pipeline, whose parameters change only after all of it
 * has been read. F16 and BF16 are converted to f32. Adapters keep what they hold where the file has none of theirs. Where a
 * `config.json` lies beside it, what it says of the model must be so.
 *
 * @param path A safetensors file, the index of several, or a folder with `model.safetensors` or its index.
 * @throws {UserError} When a file is damaged, does not have exactly the tensors of the model, has a value that is not finite, or
 * was trained with other constants, `rms_norm_eps` or an adapter's alpha for example. Nothing has changed then.
 */
export function loadWeights(pipeline: Pipeline, path: string): void {
  const file = openCheckpoint(path);
  try {
    const values = readWeights(file, path, pipeline.model);
    const state = new Map(buffersOf(pipeline.model).map(({ name }) => [name, values.get(name)!]));
    for (const name of state.keys()) values.delete(name);
    pipeline.setParameters(values, { partial: true }); // but for adapters, all of them are there
    pipeline.setState(state);
  } finally {
    file.close();
  }
}

/** The values of all parameters but tied copies, and of adapters where the file has any, and of all buffers. */
function readWeights(file: TensorFile, path: string, model: Model): Map<string, Float32Array> {
  const { family, references, adapters } = referenceModel(model);
  checkSettings(file, path, model, family);
  const withAdapters = adapters.some(({ name }) => file.tensors.has(name));
  if (withAdapters) checkScales(file, path, model);
  return readTensors(file, path, model, withAdapters ? [...references, ...adapters] : references, family);
}

/**
 * What a file has of these references, and nothing else may be in it: the values by the parameters' names, in our layout.
 *
 * @throws {UserError} When a tensor lacks, is one too many, misshapen or unreadable, or a value is not finite.
 */
export function readTensors(
  file: TensorFile,
  path: string,
  model: Model,
  references: readonly Reference[],
  family: Pick<Family, "rename">,
): Map<string, Float32Array> {
  const stored = new Map<string, string[]>();
  for (const name of file.tensors.keys()) {
    const canonical = family.rename(name, (model.tied ?? []).length > 0);
    if (canonical !== undefined) stored.set(canonical, [...stored.get(canonical) ?? [], name]);
  }
  checkFit(file, path, model.name, references, stored);
  const read = new Set(references.map(({ parameter }) => parameter));
  const ours = [...parametersOf(model), ...buffersOf(model)].filter(({ name }) => read.has(name));
  const values = new Map(ours.map(({ name, shape }) => [name, new Float32Array(sizeOf(shape))]));
  for (const reference of references) {
    const [name, ...others] = stored.get(reference.name)!;
    const theirs = file.read(name);
    const fault = notFinite(theirs);
    if (fault) throw new UserError(`${path}: tensor ${quoted(name)} has ${fault}`);
    for (const other of others) {
      const again = file.read(other);
      if (theirs.every((value, i) => Object.is(value, again[i]))) continue;
      throw new UserError(`${path}: ${quoted(name)} and ${quoted(other)} are one parameter, but not equal`);
    }
    fromReference(reference, theirs, values.get(reference.parameter)!);
  }
  return values;
}

/** How many values are NaN or infinite, in words; nothing where all are finite. */
function notFinite(values: Float32Array): string | undefined {
  let count = 0, first = -1;
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    if (count++ === 0) first = i;
  }
  return count
    ? `${count} of ${values.length} values not finite, the first is ${values[first]} at ${first}`
    : undefined;
}

function checkFit(
  { tensors }: TensorFile,
  path: string,
  model: string,
  references: readonly Reference[],
  stored: ReadonlyMap<string, readonly string[]>,
): void {
  const missing: string[] = [];
  const misshapen: string[] = [];
  for (const { name, shape } of references) {
    const names = stored.get(name);
    if (!names) missing.push(quoted(name));
    for (const each of names ?? []) {
      const found = tensors.get(each)!;
      if (found.shape.join() !== shape.join()) {
        misshapen.push(`${quoted(each)} is ${shownShape(found.shape)} instead of ${shownShape(shape)}`);
      }
    }
  }
  const known = new Set(references.map(({ name }) => name));
  const extra = [...stored].flatMap(([canonical, names]) => known.has(canonical) ? [] : names.map(quoted));
  const faults = [
    ...(missing.length ? [`it lacks ${some(missing)}`] : []),
    ...(extra.length ? [`the model has no ${some(extra)}`] : []),
    ...(misshapen.length ? [some(misshapen)] : []),
  ];
  if (faults.length) throw new UserError(`${path} does not fit ${model}: ${faults.join("; ")}`);
  for (const names of stored.values()) {
    for (const name of names) checkReadable(path, name, tensors.get(name)!.dtype);
  }
}

/** The first few of a list. */
function some(items: readonly string[]): string {
  const most = 3;
  return items.slice(0, most).join(", ") + (items.length > most ? ` and ${items.length - most} more` : "");
}
