import { UserError } from "../errors.ts";
import type { Policy } from "./actions.ts";

/**
 * Reads a policy as a command line spells it.
 *
 * @throws {UserError} For anything but `fill`, `end`, `mid`, `every:K` with a whole K of 1 or more, and `cap:BYTES`
 * with BYTES above 0.
 */
export function parsePolicy(text: string): Policy {
  if (text === "fill" || text === "end" || text === "mid") return text;
  const [, word, digits] = /^(every|cap):(\d+(?:\.\d+)?(?:e\d+)?)$/i.exec(text) ?? [];
  const value = Number(digits);
  if (word === "every" && Number.isInteger(value) && value >= 1) return `every:${value}`;
  if (word === "cap" && value > 0 && Number.isFinite(value)) return `cap:${value}`;
  throw new UserError(
    `Unknown policy "${text}"; the policies are fill, end, mid, every:K (K micro-batches, 1 or more) and cap:BYTES`,
  );
}
