/**
 * What a `config.json` says of a model: names, what may stand under them, and what stands for what is left out. Constants of
 * normalisations and rotary positions, numbers of heads and activations are there, and in no tensor.
 */
import { UserError } from "../errors.ts";
import { described, flag, optional, positive, real, type Rule } from "../rules.ts";
import { readJson } from "./files.ts";
import { isObject } from "./json.ts";

/** What was said. */
export interface Said {
  /** Where, for messages. */
  readonly where: string;
  /** The object of JSON. */
  readonly json: Readonly<Record<string, unknown>>;
  /**
   * Its `model_type`. Hugging Face writes one, and may leave out what its classes take by default; who writes none may leave out
   * anything.
   */
  readonly type: unknown;
}

/**
 * Takes what was parsed for what is said.
 *
 * @throws {UserError} When it is not an object.
 */
export function saidIn(json: unknown, where: string): Said {
  if (!isObject(json)) throw new UserError(`${where}: the configuration is not an object`);
  return { where, json, type: json.model_type };
}

/**
 * Reads a `config.json`.
 *
 * @throws {UserError} When it is not there, or holds no object.
 */
export function readSaid(path: string): Said {
  return saidIn(readJson(path, "the configuration"), path);
}

/** One thing that a `config.json` can say. */
export interface Setting {
  /** Its names there, the one written first; "a.b" is the b of an object a. Where several are used they must agree. */
  readonly names: readonly string[];
  /** What it must be for a model here to compute it; undefined is null there, or nothing. */
  readonly rule: Rule;
  /** What the reference implementation takes where nothing is said. */
  readonly unsaid?: unknown;
  /** The field that has it in our configuration; none where all models here have the same. */
  readonly field?: string;
  /** Whether weights are of no use with another value, and no tensor shows it: a checkpoint's must be the model's. */
  readonly decisive: boolean;
}

/** A size, which the shapes of tensors show. */
export function size(name: string, field: string, unsaid: number): Setting {
  return { names: [name], field, rule: positive, unsaid, decisive: false };
}

/** What a model is trained with, and can be trained on without. */
export function trained(name: string, rule: Rule, unsaid: unknown, field?: string): Setting {
  return { names: [name], rule, unsaid, decisive: false, ...field ? { field } : {} };
}

/** What a model computes with, where models here differ. */
export function constant(names: string | readonly string[], field: string, rule: Rule, unsaid?: unknown): Setting {
  return { names: [names].flat(), field, rule, unsaid, decisive: true };
}

/** What a model computes with, where all models here are alike. */
export function fixed(names: string | readonly string[], rule: Rule, unsaid?: unknown): Setting {
  return { names: [names].flat(), rule, unsaid, decisive: true };
}

/** A finite number above 0. */
export const above0: Rule = real({ least: "above 0" });

/** One value, which others may stand for; left out, it is that as well. */
export function only(value: string | number | boolean, ...synonyms: readonly unknown[]): Rule {
  return {
    right: JSON.stringify(value),
    accepts: (given) => given === undefined || given === value || synonyms.includes(given),
  };
}

/** Nothing. */
export const absent: Rule = { right: "null", accepts: (value) => value === undefined };

/** True or false; left out, whatever stands for it. */
export const whether: Rule = optional(flag);

/** What is said of a setting: under which name, and whether that is only what stands for it. */
export interface Found {
  /** The name it was found under, or the first. */
  readonly name: string;
  /** Undefined where there is nothing, or null. */
  readonly value: unknown;
  /** Whether nothing is said, and the value is {@link Setting.unsaid}. */
  readonly unsaid: boolean;
}

/**
 * Looks a setting up.
 *
 * @throws {UserError} Where its names disagree.
 */
export function find({ where, json, type }: Said, { names, unsaid }: Setting): Found {
  const given = names.flatMap((name) => {
    const value = valueAt(json, name);
    return value === undefined ? [] : [{ name, value: value ?? undefined, unsaid: false }];
  });
  const [first, ...others] = given;
  const other = others.find(({ value }) => !alike(value, first.value));
  if (other) {
    const [one, two] = [first, other].map(({ name, value }) => `${name}, which is ${described(value ?? null)}`);
    throw new UserError(`${where}: ${one}, must be the same as ${two}`);
  }
  return first ?? { name: names[0], value: type === undefined ? undefined : unsaid, unsaid: true };
}

/** What is at `a.b`; undefined is nothing said. */
function valueAt(json: Said["json"], name: string): unknown {
  let value: unknown = json;
  for (const part of name.split(".")) {
    value = isObject(value) && Object.hasOwn(value, part) ? value[part] : undefined;
  }
  return value;
}

/** Puts a value at `a.b`. */
export function putAt(json: Record<string, unknown>, name: string, value: unknown): void {
  const [first, ...rest] = name.split(".");
  if (rest.length === 0) json[first] = value;
  else putAt((json[first] ??= {}) as Record<string, unknown>, rest.join("."), value);
}

/** Numbers count as kernels have them, in f32. */
export function alike(ours: unknown, theirs: unknown): boolean {
  if (typeof ours === "number" && typeof theirs === "number") return Math.fround(ours) === Math.fround(theirs);
  return ours === theirs;
}
