/**
 * What a checkpoint was trained with and no tensor shows: constants of normalisations and rotary positions, numbers of heads,
 * activations. A model that has others would load it, and compute something else.
 */
import { dirname, join } from "node:path";
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { quoted, shown } from "../text.ts";
import { readJson, statOf } from "./files.ts";
import { isObject, parseJson } from "./json.ts";
import type { Family, Setting } from "./reference.ts";
import type { TensorFile } from "./safetensors.ts";

/** Where our own files have the settings, as JSON: the metadata of a safetensors file are texts. */
const metadataName = "twobp";

/** The settings of a model that can be set, for the metadata of its file. */
export function settingsMetadata(model: Model, family: Family): Record<string, string> {
  const values = family.settings(model).flatMap(({ names, ours, field }) => field ? [[names[0], ours]] : []);
  return { [metadataName]: JSON.stringify(Object.fromEntries(values)) };
}

/**
 * Compares a model with what its checkpoint says of itself: a `config.json` in the same folder, and what
 * {@link settingsMetadata} has put into the file.
 *
 * @throws {UserError} Names what differs and both values.
 */
export function checkSettings(file: TensorFile, path: string, model: Model, family: Family): void {
  const own = file.metadata.get(metadataName);
  if (own !== undefined) {
    try {
      compare(parseJson(new TextEncoder().encode(own)), path, model, family);
    } catch (error) {
      throw error instanceof UserError ? error : new UserError(`${path}: its metadata ${(error as Error).message}`);
    }
  }
  const folder = statOf(path)?.isDirectory() ? path : dirname(path);
  const configuration = join(folder, "config.json");
  if (statOf(configuration)) {
    compare(readJson(configuration, "the configuration"), configuration, model, family);
  }
}

function compare(said: unknown, where: string, model: Model, family: Family): void {
  if (!isObject(said)) throw new UserError(`${where}: the configuration is not an object`);
  // Hugging Face leaves out what its classes have by default. A file without a type is another's, and leaves out anything.
  const complete = said.model_type !== undefined;
  const differing = family.settings(model).flatMap(({ names, ours, unsaid, field }: Setting) => {
    const name = names.find((each) => valueAt(said, each) !== undefined) ?? names[0];
    const given = valueAt(said, name);
    const theirs = given ?? (complete ? unsaid : undefined);
    if (ours === undefined || theirs === undefined || alike(ours, theirs)) return [];
    const set = field ? ` (${field})` : "";
    const there = given === undefined ? "there by default" : "there";
    return [`${name} is ${text(theirs)} ${there}, ${text(ours)} in ${model.name}${set}`];
  });
  if (differing.length) throw new UserError(`${where} is of another model: ${differing.join("; ")}`);
}

/** What is at `a.b`; null is nothing said. */
function valueAt(said: Record<string, unknown>, name: string): unknown {
  let value: unknown = said;
  for (const part of name.split(".")) {
    value = isObject(value) && Object.hasOwn(value, part) ? value[part] : undefined;
  }
  return value ?? undefined;
}

/** Numbers count as kernels have them, in f32. */
function alike(ours: unknown, theirs: unknown): boolean {
  if (typeof ours === "number" && typeof theirs === "number") return Math.fround(ours) === Math.fround(theirs);
  return ours === theirs;
}

function text(value: unknown): string {
  return typeof value === "string" ? quoted(value) : shown(String(JSON.stringify(value)), 100);
}
