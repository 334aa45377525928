import { lower, type Program } from "../program.ts";
import type { Schedule } from "../schedule.ts";
import { holdersOf, totalHeld } from "./holder.ts";
import { type Memory, unitMemory } from "./memory.ts";

/**
 * The most that each rank holds at once, the end of the step included. It depends on the order of its actions only, not on their times.
 * Of forward passes alone it is the most that they can hold: an F is counted with all that it would keep for a backward, and gives it
 * back at its end.
 *
 * @throws {UserError} What `validate()` says of the schedule, and for an amount of memory that is none.
 */
export function peakMemory(schedule: Schedule, memory: Memory = unitMemory): number[] {
  return peaksOf(lower(schedule), memory);
}

/** {@link peakMemory} of a schedule that is lowered. */
export function peaksOf(program: Program, memory: Memory): number[] {
  return holdersOf(program, memory, program).map((holder, rank) => {
    let peak = Math.max(totalHeld(holder.held), holder.atEnd);
    for (const action of program.schedule.actions[rank]) {
      holder.start(action);
      peak = Math.max(peak, totalHeld(holder.held));
      holder.end(action);
    }
    return peak;
  });
}
