import { sizesOf } from "../check/sizes.ts";
import { validate } from "../check/validate.ts";
import type { Action, Schedule } from "../schedule.ts";

/**
 * The way back from `twoStage()`: where a rank runs the W of a micro-batch straight after its I, the two become one B,
 * whose gradient then leaves only after both. Other I and W stay as they are.
 *
 * @throws {UserError} What `validate()` says of the schedule.
 *
 * @example
 * ```ts
 * import { generate, twoStage } from "twobp";
 * import { mergeBackward } from "twobp/schedules";
 *
 * const gpipe = generate("gpipe", { devices: 4 });
 * const back = mergeBackward(twoStage(gpipe, { policy: "every:1" }));
 * console.log(back.actions[0].length); // 8
 * ```
 */
export function mergeBackward(schedule: Schedule): Schedule {
  validate(schedule);
  const actions = schedule.actions.map((list) => {
    const result: Action[] = [];
    for (const action of list) {
      const before = result.at(-1);
      const { kind, stage, microbatches } = action;
      const follows = before?.kind === "I" && kind === "W" && before.stage === stage && microbatches.length === 1 &&
        before.microbatches[0] === microbatches[0];
      if (follows) result[result.length - 1] = { ...before, kind: "B" };
      else result.push(action);
    }
    return result;
  });
  const { policy, slower: _, ...rest } = schedule; // the costs of the split order do not hold any more
  const merged = { ...rest, actions };
  return policy && sizesOf(merged).split ? { ...merged, policy } : merged;
}
