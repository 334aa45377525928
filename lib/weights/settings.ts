/** Whether a checkpoint was trained with what a model computes with: another one would load, and compute something else. */
import { dirname, join } from "node:path";
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { quoted, shown } from "../text.ts";
import { statOf } from "./files.ts";
import { parseJson } from "./json.ts";
import type { Family } from "./reference.ts";
import type { TensorFile } from "./safetensors.ts";
import { alike, find, putAt, readSaid, type Said, saidIn } from "./said.ts";

/** Where our own files have the settings, as JSON: the metadata of a safetensors file are texts. */
const metadataName = "twobp";

/** The settings of a model that no tensor shows, for the metadata of its file. */
export function settingsMetadata(model: Model, family: Family): Record<string, string> {
  const values = family.values(model), said = {};
  for (const { names, field, decisive } of family.settings()) {
    if (decisive && field && values[field] !== undefined) putAt(said, names[0], values[field]);
  }
  return { [metadataName]: JSON.stringify(said) };
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
      compare(saidIn(parseJson(new TextEncoder().encode(own)), path), model, family);
    } catch (error) {
      throw error instanceof UserError ? error : new UserError(`${path}: its metadata ${(error as Error).message}`);
    }
  }
  const folder = statOf(path)?.isDirectory() ? path : dirname(path);
  const configuration = join(folder, "config.json");
  if (statOf(configuration)) compare(readSaid(configuration), model, family);
}

function compare(said: Said, model: Model, family: Family): void {
  const type = family.types.find((each) => each === said.type);
  const differing: string[] = [];
  if (said.type !== undefined && family.types.length && !type) {
    differing.push(`model_type is ${text(said.type)} there, ${family.types.map(quoted).join(" or ")} in ${model.name}`);
  }
  const values = family.values(model);
  for (const setting of family.settings(type)) {
    if (!setting.decisive) continue;
    const { field, rule } = setting;
    const { name, value, unsaid } = find(said, setting);
    const ours = field ? values[field] : undefined;
    const fits = field ? ours === undefined || value === undefined || alike(ours, value) : rule.accepts(value);
    if (fits) continue;
    const here = field ? `${text(ours)} in ${model.name} (${field})` : `${rule.right} in ${model.name}`;
    differing.push(`${name} is ${text(value)} there${unsaid ? " by default" : ""}, ${here}`);
  }
  if (differing.length) throw new UserError(`${said.where} is of another model: ${differing.join("; ")}`);
}

function text(value: unknown): string {
  return typeof value === "string" ? quoted(value) : shown(JSON.stringify(value ?? null), 100);
}
