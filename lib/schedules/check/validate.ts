import { lower } from "../program.ts";
import type { Schedule } from "../schedule.ts";

/**
 * Accepts a schedule that runs to its end and computes every micro-batch on every stage exactly once, and explains the
 * first thing that is wrong with any other: sizes, placement, counts, order, dependencies between stages, concatenation
 * rules, and deadlock with the cycle named rank by rank. Takes time linear in the number of actions. Every function that takes a
 * schedule refuses what this one refuses.
 *
 * @throws {UserError} Says where the mistake is and what would be right.
 */
export function validate(schedule: Schedule): void {
  lower(schedule);
}
