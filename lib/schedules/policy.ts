import { parseBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { Policy } from "./actions.ts";

/**
 * Reads a policy as a command line spells it.
 *
 * @throws {UserError} For anything but `fill`, `lean`, `end`, `mid`, `every:K` with a whole K of 1 or more, and `cap:BYTES` with
 * BYTES as {@link parseBytes} reads them.
 */
export function parsePolicy(text: string): Policy {
  if (text === "fill" || text === "lean" || text === "end" || text === "mid") return text;
  const [, word, value] = /^(every|cap):(.+)$/i.exec(text) ?? [];
  if (word === "every" && /^\d+$/.test(value) && Number(value) >= 1) return `every:${Number(value)}`;
  if (word === "cap" && isBytes(value)) return `cap:${parseBytes(value)}`;
  throw new UserError(
    `Unknown policy "${text}"; the policies are fill, lean, end, mid, every:K (K micro-batches, 1 or more) and ` +
      "cap:BYTES (1e9 or 64MiB for example)",
  );
}

function isBytes(text: string): boolean {
  try {
    return parseBytes(text) > 0;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}
