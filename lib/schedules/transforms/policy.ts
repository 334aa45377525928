import { parseBytes } from "../../bytes.ts";
import { UserError } from "../../errors.ts";
import type { Policy } from "../schedule.ts";

/**
 * Reads a policy as a command line spells it.
 *
 * @throws {UserError} For anything but `fill`, `lean`, `end`, `mid`, `every:K` with a whole K of 1 or more, and `cap:BYTES` with
 * BYTES as {@link parseBytes} reads them, or a number above 0 in whatever unit the memory model has.
 */
export function parsePolicy(text: string): Policy {
  if (text === "fill" || text === "lean" || text === "end" || text === "mid") return text;
  const [, word, value] = /^(every|cap):(.+)$/i.exec(text) ?? [];
  if (word === "every" && /^\d+$/.test(value) && Number(value) >= 1 && Number.isSafeInteger(Number(value))) {
    return `every:${Number(value)}`;
  }
  if (word === "cap") {
    const cap = amountOf(value);
    if (cap !== undefined) return `cap:${cap}`;
  }
  throw new UserError(
    `Unknown policy "${text}"; the policies are fill, lean, end, mid, every:K (K micro-batches, 1 or more) and ` +
      "cap:BYTES (1e9 or 64MiB for example)",
  );
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
