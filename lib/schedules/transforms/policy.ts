/** Policies: when the weight gradients that 2BP puts off run. */
import { parseBytes } from "../../bytes.ts";
import { UserError } from "../../errors.ts";
import type { PolicyText } from "../schedule.ts";

/** When the delayed weight gradients run; {@link policies} says what each does. */
export type Policy =
  | { readonly kind: "fill" | "lean" | "select" | "paper" | "end" | "mid" }
  | { readonly kind: "every"; readonly count: number }
  | { readonly kind: "cap"; readonly bytes: number };

/** What there is to say about a policy. */
export interface PolicyKind {
  /** Its name. */
  readonly kind: Policy["kind"];
  /** What follows the name and a colon, and what is right for it; absent where nothing does. */
  readonly value?: { readonly name: string; readonly right: string };
  /** When weight gradients run, in a few words. */
  readonly runs: string;
}

/** Every policy that `twoStage()` and `--policy` take. */
export const policies: readonly PolicyKind[] = [
  { kind: "fill", runs: "in idle slots" },
  { kind: "lean", runs: "in idle slots, in as little memory as a heuristic finds for a step as short" },
  { kind: "select", runs: "in idle slots, and only where the split pays: other backwards stay whole" },
  {
    kind: "paper",
    runs: "one after each I of the cool-down, then the rest in one W a stage: the 2BP paper's way, by public code",
  },
  { kind: "end", runs: "after everything else" },
  { kind: "mid", runs: "once at half time and once at the end" },
  {
    kind: "every",
    value: { name: "K", right: "K micro-batches, 1 or more" },
    runs: "as soon as K of a stage are pending",
  },
  {
    kind: "cap",
    value: { name: "BYTES", right: "1e9 or 64MiB for example" },
    runs: "in idle slots, and earlier where a rank would hold more than BYTES",
  },
];

/** How a policy is written: `every:K`. */
export function spellingOf({ kind, value }: PolicyKind): string {
  return value ? `${kind}:${value.name}` : kind;
}

/**
 * Reads a policy as a command line spells it.
 *
 * ```ts
 * import { parsePolicy } from "twobp/schedules";
 *
 * console.log(parsePolicy("cap:64MiB")); // { kind: "cap", bytes: 67108864 }
 * ```
 *
 * @throws {UserError} For anything but `fill`, `lean`, `select`, `paper`, `end`, `mid`, `every:K` with a whole K of 1 or more, and `cap:BYTES`
 * with BYTES as {@link parseBytes} reads them, or a number above 0 in whatever unit the memory model has.
 */
export function parsePolicy(text: string): Policy {
  if (policies.some(({ kind, value }) => kind === text && !value)) return { kind: text } as Policy;
  const [, kind, value] = /^(every|cap):(.+)$/i.exec(text) ?? [];
  if (kind === "every" && /^\d+$/.test(value) && Number(value) >= 1 && Number.isSafeInteger(Number(value))) {
    return { kind, count: Number(value) };
  }
  const bytes = kind === "cap" ? amountOf(value) : undefined;
  if (bytes !== undefined) return { kind: "cap", bytes };
  const known = policies.map((each) => spellingOf(each) + (each.value ? ` (${each.value.right})` : ""));
  throw new UserError(
    `Unknown policy "${text}"; the policies are ${known.slice(0, -1).join(", ")} and ${known[known.length - 1]}`,
  );
}

/** A policy as {@link parsePolicy} reads it. */
export function formatPolicy(policy: Policy): PolicyText {
  if (policy.kind === "every") return `every:${policy.count}`;
  return policy.kind === "cap" ? `cap:${policy.bytes}` : policy.kind;
}

/** Bytes, which are whole, or a plain number, which stays as it is: a memory model may count in gigabytes. */
function amountOf(text: string): number | undefined {
  if (/^\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text)) {
    const amount = Number(text);
    return amount > 0 && amount < Infinity ? amount : undefined;
  }
  try {
    return parseBytes(text);
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}
