/** Names that are meant: by an expression, or by a function. */
import type { Rule } from "./rules.ts";

/** Finds names: an expression that is found in them, or a function that says yes. */
export type Match = RegExp | ((name: string) => boolean);

/** What takes a {@link Match} of parameters asks for this. */
export const matchRule: Rule = {
  right: "a RegExp or a function of a parameter's name",
  accepts: (value) => value instanceof RegExp || typeof value === "function",
};

/** Whether a name is meant. */
export function matches(match: Match, name: string): boolean {
  return match instanceof RegExp ? name.search(match) >= 0 : Boolean(match(name)); // test() would remember where it was
}
