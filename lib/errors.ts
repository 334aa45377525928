/**
 * A mistake of the caller that one line can explain: a bad flag, an impossible schedule, shapes that do not fit.
 * Command lines print its message alone, without a stack trace, and exit with code 2.
 */
export class UserError extends Error {
  /** Always "UserError". */
  override name = "UserError";
}

/** What an error says, in a text that is never empty: WebGPU rejects the maps of a lost device without a message. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error) && !(typeof error === "object" && error !== null && "message" in error)) {
    return String(error);
  }
  const { message, name } = error as Error;
  return message.trim() || name || "unknown error";
}
