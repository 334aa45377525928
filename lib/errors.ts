import { shown } from "./text.ts";

/** Longer messages lose their middle: nobody reads them, and a file could make them as long as itself. */
const longest = 2000;

/**
 * A mistake of the caller that one line can explain: a bad flag, an impossible schedule, shapes that do not fit.
 * Command lines print its message alone, without a stack trace, and exit with code 2.
 *
 * The message is safe to print whatever a file or a caller put into it: one line of bounded length, in which control,
 * direction and invisible characters are escaped.
 */
export class UserError extends Error {
  /** Always "UserError". */
  override name = "UserError";

  /** Takes the message as one line; line breaks become blanks. */
  constructor(message: string, options?: ErrorOptions) {
    super(shown(message.replace(/[\r\n]+\s*/g, " "), longest), options);
  }
}

/** What an error says, in a text that is never empty: WebGPU rejects the maps of a lost device without a message. */
export function reasonOf(error: unknown): string {
  if (typeof error !== "object" || error === null) return error === "" ? "unknown error" : String(error);
  const { message, name } = error as Partial<Error>;
  return String(message ?? "").trim() || name || "unknown error";
}
