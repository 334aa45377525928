/** What the executor needs to know of a schedule before it runs. */
import { UserError } from "../errors.ts";
import type { Action, Schedule } from "../schedules/schedule.ts";
import { expectSchedule } from "../schedules/check/sizes.ts";
import { validate } from "../schedules/check/validate.ts";

/** Where a micro-batch lies in the group of those whose weight gradient is computed together. */
export interface Place {
  /** The action, W or B, that ends the group. */
  readonly action: Action;
  readonly position: number;
  readonly size: number;
}

/** The place of each micro-batch, `places[stage][microbatch]`. */
export type Plan = readonly (readonly Place[])[];

/**
 * A copy of a schedule, for one step: it is plain data, which its owner may change while the step is under way.
 *
 * @throws {UserError} What `validate` finds.
 */
export function copyOf(schedule: Schedule): Schedule {
  validate(schedule);
  const actions = schedule.actions.map((list) =>
    list.map(({ kind, stage, microbatches }) => ({ kind, stage, microbatches: [...microbatches] }))
  );
  return { ...schedule, placement: [...schedule.placement], actions };
}

/**
 * Validates a schedule and groups its micro-batches. At every step: a schedule is plain data, which may have been changed since
 * the last one, and this takes less than a millisecond for thousands of actions.
 *
 * @throws {UserError} What `validate` finds, or a schedule that does not fit the pipeline.
 */
export function planOf(schedule: Schedule, devices: number, placement: readonly number[]): Plan {
  expectSchedule(schedule);
  const stages = placement.length;
  if (schedule.devices !== devices || schedule.stages !== stages) {
    throw new UserError(
      `Schedule ${schedule.name} is for ${schedule.stages} stages on ${schedule.devices} devices, ` +
        `the pipeline has ${stages} on ${devices}`,
    );
  }
  if (schedule.placement.some((rank, stage) => rank !== placement[stage])) {
    throw new UserError(
      `Schedule ${schedule.name} has its stages on ranks ${schedule.placement.join()}, the pipeline on ` +
        `${placement.join()}: make the pipeline with the schedule's placement`,
    );
  }
  validate(schedule);
  const plan: Place[][] = Array.from({ length: stages }, () => []);
  for (const action of schedule.actions.flat()) {
    if (action.kind !== "W" && action.kind !== "B") continue;
    const size = action.microbatches.length;
    action.microbatches.forEach((microbatch, position) => plan[action.stage][microbatch] = { action, position, size });
  }
  return plan;
}
