import { UserError } from "../../errors.ts";
import { validate } from "../check/validate.ts";
import type { Action, Schedule } from "../schedule.ts";

/**
 * Recomputation ahead of the backward that needs it: right before each I or B of the given stages an R, which runs what that would
 * recompute first. It needs nothing from another rank, so it runs while the gradient is still on its way, where the I would have waited
 * first and recomputed then: the step is never longer (in a run, by more than what the host takes to issue R). The price is memory: an I
 * recomputes one layer after the other, an R all of its stage's, for one micro-batch. Schedules that bring R of their own may put them anywhere between the F and the backward. For 2BP, first
 * this and then `twoStage()`, whose W then fill what is still idle.
 *
 * @param stages Those that recompute; by default all. An R of a stage that recomputes nothing has nothing to do.
 * @throws {UserError} What `validate()` says of the schedule; for one that has R already; for a stage that is not there.
 *
 * @example
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { recomputeAhead, unitCosts } from "twobp/schedules";
 *
 * const costs = unitCosts({ i: 2, r: 1 }); // an I of 2, of which 1 recomputes
 * const schedule = generate("1f1b-1", { devices: 4 });
 * console.log(simulate(schedule, costs).makespan, simulate(recomputeAhead(schedule), costs).makespan); // 28 25
 * ```
 */
export function recomputeAhead(schedule: Schedule, stages?: readonly number[]): Schedule {
  validate(schedule);
  const { placement: { length }, name } = schedule;
  const chosen = new Set(stages ?? schedule.placement.keys());
  for (const stage of chosen) {
    if (Number.isInteger(stage) && stage >= 0 && stage < length) continue;
    throw new UserError(`${name} has no stage ${stage} to recompute; its stages are 0 to ${length - 1}`);
  }
  if (schedule.actions.some((list) => list.some(({ kind }) => kind === "R"))) {
    throw new UserError(`${name} says itself where it recomputes ahead; leave out its R to have them placed`);
  }
  const actions = schedule.actions.map((list) =>
    list.flatMap((action): Action[] => {
      const { kind, stage, microbatches } = action;
      const isBackward = kind === "I" || kind === "B";
      return isBackward && chosen.has(stage) ? [{ kind: "R", stage, microbatches }, action] : [action];
    })
  );
  return { ...schedule, actions };
}
