/** What times and amounts of memory must be. */
import { expectValue, type Rule } from "../../rules.ts";

/** A time, or an amount of memory. */
export const amount: Rule = {
  right: "a finite number, 0 or more",
  accepts: (value) => Number.isFinite(value) && (value as number) >= 0,
};

/** A difference of two amounts. */
export const difference: Rule = { right: "a finite number", accepts: Number.isFinite };

/**
 * Refuses what is no time and no amount of memory.
 *
 * @param what Begins the message.
 */
export function checkAmount(what: string, value: unknown): void {
  expectValue(what, value, amount);
}
