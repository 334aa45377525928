/** What rows say of schedules. */
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";

/** What every row of a report says of the schedule that it is about. */
export interface Variant {
  /** Name of the schedule. */
  readonly schedule: string;
  /** Whether it is the schedule with 2BP: backward passes were split, or policy `select` found that none should be. */
  readonly twoStage: boolean;
  /** There where the schedule is split by itself, and this row is what it is compared with: its order with each I and its W as one B. */
  readonly joined?: true;
  /** When the delayed W ran, where `twoStage()` placed them. */
  readonly policy?: string;
  /** Most micro-batches in one W. */
  readonly width: number;
}

/** What a row says of this schedule. */
export function variant(schedule: Schedule): Variant {
  const { name, policy } = schedule;
  const { split, width } = sizesOf(schedule);
  return { schedule: name, twoStage: split || policy !== undefined, ...(policy ? { policy } : {}), width };
}
