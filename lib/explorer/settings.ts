/** What the explorer can be asked: the fields of its form, as texts, and what they mean. */
import { UserError } from "../errors.ts";
import { expectValue, oneOf, positive, type Rule, whole } from "../rules.ts";
import { amount } from "../schedules/price/amounts.ts";
import { scheduleNames } from "../schedules/generators/generate.ts";
import { policies } from "../schedules/transforms/policy.ts";
import { parsePolicy, type Policy, type PolicyKind } from "../schedules/transforms/policy.ts";
import { shown } from "../text.ts";

/** Every field of the form, and what stands in it at first. Empty is what {@link Settings} says of `undefined`. */
export const defaults = {
  schedule: "1f1b-1",
  devices: "4",
  microbatches: "",
  chunks: "",
  ranges: "1",
  policy: "fill",
  every: "2",
  width: "1",
  f: "1",
  i: "1",
  w: "1",
  b: "",
  r: "",
  latency: "0",
  transfer: "0",
  activations: "1",
  released: "0",
  derivatives: "1",
  recomputed: "0",
  cap: "",
  budget: "200000",
};

/** A field of the form. */
export type Field = keyof typeof defaults;

/** What stands in the fields. */
export type Values = Readonly<Record<Field, string>>;

/** What the fields are called on the page and in messages. */
export const labels: Readonly<Record<Field, string>> = {
  schedule: "Schedule",
  devices: "Ranks",
  microbatches: "Micro-batches",
  chunks: "Stages a rank",
  ranges: "Ranges a stage",
  policy: "Policy",
  every: "K",
  width: "Width",
  f: "F",
  i: "I",
  w: "W",
  b: "B",
  r: "R",
  latency: "Latency",
  transfer: "Transfer",
  activations: "Activations",
  released: "Released",
  derivatives: "Derivatives",
  recomputed: "Recomputed",
  cap: "Cap",
  budget: "Candidates",
};

/** What the fields mean. Costs and amounts of memory are a number for all stages, or one for each; of whole ones, in ranges too. */
export interface Settings {
  /** A name of the zoo. */
  readonly schedule: string;
  readonly devices: number;
  /** Those that are usual for the schedule where there is nothing. */
  readonly microbatches?: number;
  readonly chunks?: number;
  /** How many ranges of layers each stage is cut into, with a W of its own. */
  readonly ranges: number;
  readonly policy: Policy;
  /** How many micro-batches one W takes. */
  readonly width: number;
  readonly f: readonly number[];
  readonly i: readonly number[];
  readonly w: readonly number[];
  /** As long as I and W together where there is nothing. */
  readonly b?: readonly number[];
  /** What of I and of B recomputes, which an R then runs ahead of them; no R where there is nothing. */
  readonly r?: readonly number[];
  /** Of every link, or of each from a rank to the next. */
  readonly latency: readonly number[];
  /** What an activation or a gradient takes besides. */
  readonly transfer: readonly number[];
  readonly activations: readonly number[];
  readonly released: readonly number[];
  readonly derivatives: readonly number[];
  /** From R to its I or B. */
  readonly recomputed: readonly number[];
  /** The most that a rank may hold: drawn, kept by a search and by the policy of that name. */
  readonly cap?: number;
  /** Candidates that a search looks at. */
  readonly budget: number;
}

/** More than anybody can look at. */
const mostRanks = 64, mostMicrobatches = 1024, mostRanges = 16;

/** How the page spells policies: `every` and `cap` take their values from other fields. */
export const policyNames: readonly PolicyKind["kind"][] = policies.map(({ kind }) => kind);

/**
 * Reads the fields.
 *
 * @throws {UserError} Names the first that is wrong, and what would be right.
 */
export function read(values: Values): Settings {
  check("schedule", values.schedule, oneOf(scheduleNames));
  check("policy", values.policy, oneOf(policyNames));
  const cap = values.cap.trim() === "" ? undefined : number("cap", values, amount);
  return {
    schedule: values.schedule,
    devices: number("devices", values, whole(1, mostRanks)),
    microbatches: perhaps("microbatches", values, whole(1, mostMicrobatches)),
    chunks: perhaps("chunks", values, whole(1, mostRanks)),
    ranges: number("ranges", values, whole(1, mostRanges)),
    policy: policyOf(values, cap),
    width: number("width", values, whole(1, mostMicrobatches)),
    f: list("f", values),
    i: list("i", values),
    w: list("w", values),
    b: values.b.trim() === "" ? undefined : list("b", values),
    r: values.r.trim() === "" ? undefined : list("r", values),
    latency: list("latency", values),
    transfer: list("transfer", values),
    activations: list("activations", values),
    released: list("released", values),
    derivatives: list("derivatives", values),
    recomputed: list("recomputed", values),
    cap,
    budget: number("budget", values, positive),
  };
}

/** One of as many values as there are `things`, or the only one. */
export function each(
  field: Field,
  list: readonly number[],
  things: number,
  what: string,
): (index: number) => number {
  if (list.length === 1) return () => list[0];
  if (list.length === things) return (index) => list[index];
  throw new UserError(
    `${labels[field]} has ${list.length} values, and there are ${things} ${what}: give one for all, or one for each`,
  );
}

function policyOf({ policy, every }: Values, cap: number | undefined): Policy {
  if (policy === "every") return parsePolicy(`every:${number("every", { every }, positive)}`);
  if (policy !== "cap") return parsePolicy(policy);
  if (cap === undefined) throw new UserError("The policy cap keeps the cap of memory, and there is none: give one");
  return parsePolicy(`cap:${cap}`);
}

function check(field: Field, value: unknown, rule: Rule): void {
  expectValue(labels[field], value, rule);
}

/** A number as people write it; a text that is none stays one, for the message. */
export function numberOf(text: string): unknown {
  return text.trim() === "" || !Number.isFinite(Number(text)) ? shown(text) : Number(text);
}

function number(field: Field, values: Partial<Values>, rule: Rule): number {
  const value = numberOf(values[field] ?? "");
  check(field, value, rule);
  return value as number;
}

function perhaps(field: Field, values: Values, rule: Rule): number | undefined {
  return values[field].trim() === "" ? undefined : number(field, values, rule);
}

function list(field: Field, values: Values): number[] {
  return values[field].split(",").map((text) => {
    const value = numberOf(text);
    check(field, value, amount);
    return value as number;
  });
}
