import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";

/** Name and 2BP variant: `1f1b-2, 2BP fill, width 2`. */
export function variantOf(schedule: Schedule): string {
  const { name, policy } = schedule;
  const { split, width } = sizesOf(schedule);
  const how = policy ? `2BP ${policy}` : split ? "split" : "";
  return [name, how, width > 1 ? `width ${width}` : ""].filter(Boolean).join(", ");
}
