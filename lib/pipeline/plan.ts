/** What the executor needs to know of a schedule before it runs. */
import { UserError } from "../errors.ts";
import type { Action, Schedule } from "../schedules/actions.ts";
import { validate } from "../schedules/validate.ts";

/** Where a micro-batch lies in the group of those whose weight gradient is computed together. */
export interface Place {
  /** The action, W or B, that ends the group. */
  readonly action: Action;
  readonly position: number;
  readonly size: number;
}

/** The place of each micro-batch, `places[stage][microbatch]`. */
export type Plan = readonly (readonly Place[])[];

const plans = new WeakMap<Schedule, Plan>();

/**
 * Validates a schedule, once, and groups its micro-batches.
 *
 * @throws {UserError} What `validate` finds, or a schedule that does not fit the pipeline.
 */
export function planOf(schedule: Schedule, devices: number, placement: readonly number[]): Plan {
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
  let plan = plans.get(schedule);
  if (!plan) {
    validate(schedule);
    const places: Place[][] = Array.from({ length: stages }, () => []);
    for (const action of schedule.actions.flat()) {
      if (action.kind !== "W" && action.kind !== "B") continue;
      const size = action.microbatches.length;
      action.microbatches.forEach((microbatch, position) =>
        places[action.stage][microbatch] = { action, position, size }
      );
    }
    plans.set(schedule, plan = places);
  }
  return plan;
}
