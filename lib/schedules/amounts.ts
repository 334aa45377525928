/** Times and amounts of memory. */
import { UserError } from "../errors.ts";

/** Whether a value is a finite number, 0 or more. */
export function isAmount(value: unknown): boolean {
  return Number.isFinite(value) && (value as number) >= 0;
}

/**
 * Refuses what is no finite number of 0 or more.
 *
 * @param what Begins the message.
 */
export function checkAmount(what: string, value: unknown): void {
  if (!isAmount(value)) throw new UserError(`${what} is ${value}; it must be a finite number, 0 or more`);
}
