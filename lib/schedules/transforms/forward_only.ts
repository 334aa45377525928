import { validate } from "../check/validate.ts";
import type { Schedule } from "../schedule.ts";

/**
 * The forward passes of a schedule alone, in their order: what an evaluation runs. It is a schedule like any other, to be simulated,
 * drawn and written; `pipeline.evaluate()` runs it, and no step trains with it. One of forward passes alone is returned as it is.
 *
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { forwardOnly } from "twobp/schedules";
 *
 * const schedule = forwardOnly(generate("1f1b-1", { devices: 4, microbatches: 8 }));
 * console.log(schedule.name, simulate(schedule).makespan); // 1f1b-1 forward 11: 8 micro-batches, 3 stages further
 * ```
 *
 * @throws {UserError} What `validate()` says of the schedule.
 */
export function forwardOnly(schedule: Schedule): Schedule {
  validate(schedule);
  if (schedule.actions.every((list) => list.every(({ kind }) => kind === "F"))) return schedule;
  const { policy: _, slower: __, ...rest } = schedule; // they are about W
  return {
    ...rest,
    name: `${schedule.name} forward`,
    actions: schedule.actions.map((list) => list.filter(({ kind }) => kind === "F")),
  };
}
