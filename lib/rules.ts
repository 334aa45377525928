/**
 * Rules for what callers give: options, configurations, sizes. What breaks a rule is refused in one line that names it, its
 * value, and what would be right.
 */
import { UserError } from "./errors.ts";

/** What a value must be. */
export interface Rule {
  /** In words, "a whole number, 1 or more": what an error says would be right. */
  readonly right: string;
  /** Whether a value is that. */
  accepts(value: unknown): boolean;
}

/** A rule for each field, those that may be left out too (see {@link optional}): a field without a rule is unknown. */
export type Rules<Fields> = { readonly [Name in keyof Required<Fields>]: Rule };

/** A whole number between two bounds, both allowed. */
export function whole(least: number, most: number = Number.MAX_SAFE_INTEGER): Rule {
  return {
    right: most === Number.MAX_SAFE_INTEGER
      ? `a whole number, ${least} or more`
      : `a whole number from ${least} to ${most}`,
    accepts: (value) => Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most,
  };
}

/** A whole number, 1 or more: how many there are of something. */
export const positive: Rule = whole(1);

/** A whole number of 32 bits, as seeds are. */
export const u32: Rule = whole(0, 2 ** 32 - 1);

/** The least number above 0 that f32 holds at full precision; devices may take anything smaller for 0. */
const leastPositive = 2 ** -126;

/** A number that is finite in f32, which devices compute in: `least` or more, or `above` 0; and perhaps `below` a bound. */
export function real({ least, below }: { least: number | "above 0"; below?: number }): Rule {
  const from = least === "above 0" ? leastPositive : least;
  const start = least === "above 0" ? "above 0" : `${least} or more`;
  return {
    right: below === undefined ? `a finite number, ${start}` : `a number, ${start} and below ${below}`,
    accepts: (value) =>
      typeof value === "number" && Number.isFinite(Math.fround(value)) && value >= from &&
      (below === undefined || Math.fround(value) < below), // 1 - 1e-9 is 1 there
  };
}

/** One of several names. */
export function oneOf(names: readonly string[]): Rule {
  return {
    right: `one of ${names.map((name) => `"${name}"`).join(", ")}`,
    accepts: (value) => names.includes(value as string),
  };
}

/** A list whose values all follow a rule: `count` of them, by default one or more. */
export function listOf(rule: Rule, count?: number): Rule {
  return {
    right: count === undefined ? `a list of one or more, each ${rule.right}` : `a list of ${count}, each ${rule.right}`,
    accepts: (value) =>
      Array.isArray(value) && (count === undefined ? value.length > 0 : value.length === count) &&
      Array.from(value).every((each) => rule.accepts(each)),
  };
}

/** A list with anything in it. */
export const filled: Rule = {
  right: "a list of one or more",
  accepts: (value) => Array.isArray(value) && value.length > 0,
};

/** Text. */
export const string: Rule = { right: "a string", accepts: (value) => typeof value === "string" };

/** True or false. */
export const flag: Rule = { right: "true or false", accepts: (value) => typeof value === "boolean" };

/** Something to call. */
export const callback: Rule = { right: "a function", accepts: (value) => typeof value === "function" };

/** An object with these methods. */
export function having(...methods: readonly string[]): Rule {
  return {
    right: `an object with ${methods.map((name) => `${name}()`).join(" and ")}`,
    accepts: (value) =>
      typeof value === "object" && value !== null &&
      methods.every((name) => typeof (value as Record<string, unknown>)[name] === "function"),
  };
}

/** Whatever it is: for what is looked at elsewhere. */
export const anything: Rule = { right: "anything", accepts: () => true };

/** The same, or left out. */
export function optional(rule: Rule): Rule {
  return { right: rule.right, accepts: (value) => value === undefined || rule.accepts(value) };
}

/**
 * Refuses a value that breaks its rule.
 *
 * @throws {UserError} "`what` must be ..., not ...".
 */
export function expectValue(what: string, value: unknown, rule: Rule): void {
  if (!rule.accepts(value)) throw new UserError(`${what} must be ${rule.right}, not ${described(value)}`);
}

/**
 * Refuses options with a value that breaks its rule, or with a name that there is none for: an option whose name is
 * mistyped would otherwise be left at its default, and nobody told.
 *
 * @throws {UserError} It begins with `owner`, to whom the options belong.
 */
export function expectFields<Fields extends object>(owner: string, fields: Fields, rules: Rules<Fields>): void {
  const names = Object.keys(rules).join(", ");
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new UserError(`${owner} takes an object with ${names}, not ${described(fields)}`);
  }
  const values = fields as Readonly<Record<string, unknown>>;
  for (const name of Object.keys(values)) {
    if (values[name] !== undefined && !Object.hasOwn(rules, name)) {
      throw new UserError(`${owner}: there is no ${described(name)}; there are ${names}`);
    }
  }
  for (const [name, rule] of Object.entries<Rule>(rules)) expectValue(`${owner}: ${name}`, values[name], rule);
}

/** A value in an error message, which is short whatever the value. */
export function described(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) {
    const first = Array.from(value.slice(0, 8), (each) => Array.isArray(each) ? "a list" : described(each));
    return `[${first.join(", ")}${value.length > 8 ? ", ..." : ""}]`;
  }
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value).slice(0, 40);
  if (value instanceof Promise) return "a Promise (await it)";
  const name = value.constructor?.name;
  if (!name || name === "Object") return "an object";
  return `${/^[AEIO]/.test(name) ? "an" : "a"} ${name.slice(0, 40)}`;
}
