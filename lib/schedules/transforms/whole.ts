import { validate } from "../check/validate.ts";
import type { Schedule } from "../schedule.ts";

/**
 * A schedule without 2BP: every I and its W become one B in the place of the I, whose gradient then leaves only after
 * both. The order of forward and backward passes stays, so that whatever runs to its end still does. It is the way back
 * from `twoStage()`, and gives schedules that are split by themselves, ZB-V for example, what they are compared with.
 *
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { wholeBackward } from "twobp/schedules";
 *
 * const split = generate("zb-h1", { devices: 4 }); // its order is that of 1F1B
 * console.log(simulate(wholeBackward(split)).makespan, simulate(split).makespan); // 33 27
 * ```
 *
 * @throws {UserError} What `validate()` says of the schedule.
 */
export function wholeBackward(schedule: Schedule): Schedule {
  validate(schedule);
  const actions = schedule.actions.map((list) =>
    list.flatMap((action) => {
      if (action.kind === "W") return [];
      return action.kind === "I" ? { ...action, kind: "B" as const } : action;
    })
  );
  const { policy: _, slower: __, ...rest } = schedule; // they are about W
  return { ...rest, actions };
}
