/** Every place that the weight gradients of a schedule of F and B can have, its F and I being in their order. */
import type { Action } from "../../lib/schedules/schedule.ts";

/** Every list that a rank may run in place of its F and B: each B an I there, and the W of each stage anywhere later, in their order. */
export function weightPlaces(list: readonly Action[]): Action[][] {
  const all: Action[][] = [];
  const extend = (made: Action[], at: number, pending: readonly Action[]) => {
    if (at === list.length && pending.length === 0) return void all.push(made);
    // Of each stage the one that has waited longest.
    const next = pending.filter(({ stage }, index) => pending.findIndex((other) => other.stage === stage) === index);
    for (const w of next) extend([...made, w], at, pending.filter((other) => other !== w));
    if (at === list.length) return;
    const action = list[at];
    if (action.kind === "F") return extend([...made, action], at + 1, pending);
    extend([...made, { ...action, kind: "I" }], at + 1, [...pending, { ...action, kind: "W" }]);
  };
  extend([], 0, []);
  return all;
}
