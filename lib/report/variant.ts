import type { Schedule } from "../schedules/schedule.ts";

/** Name and 2BP variant: `1f1b-2, 2BP fill, width 2`. */
export function variantOf({ name, twoStage, policy, width }: Schedule): string {
  const how = policy ? `2BP ${policy}` : twoStage ? "split" : "";
  return [name, how, width > 1 ? `width ${width}` : ""].filter(Boolean).join(", ");
}
