import { checkCells, checkWhole, sizesOf } from "../check/sizes.ts";
import { validate } from "../check/validate.ts";
import type { Action, Schedule } from "../schedule.ts";

/**
 * Weight gradients by range of a stage's layers: cuts every stage into `ranges` stages on the same rank, which run one after the other
 * where the whole stage ran, backwards in the other direction. Nothing is sent between them, so the step is as long as before; but
 * each range's W can now run at a time of its own, the last layers' first for example and the others in a later idle slot, and
 * gives its memory back then. For 2BP, first this and then `twoStage()`. The price is that the host issues so many times as many actions.
 *
 * A model is cut for it as for the schedule itself, and each of those stages again into ranges of equal work.
 *
 * @param ranges Of each stage; 1 or more.
 * @throws {UserError} What `validate()` says of the schedule, for a number of ranges that is none, and for a schedule that would be too large.
 *
 * @example
 * ```ts
 * import { generate, simulate, twoStage } from "twobp";
 * import { splitStages, unitCosts } from "twobp/schedules";
 *
 * const base = generate("1f1b-1", { devices: 4 }), whole = unitCosts({ w: 2, comm: 0.5 });
 * const ranges = splitStages(base, 2), half = unitCosts({ f: 0.5, i: 0.5, w: 1, comm: 0.5 });
 * console.log(simulate(twoStage(base, { costs: whole }), whole).makespan); // 24
 * console.log(simulate(twoStage(ranges, { costs: half }), half).makespan); // 22
 * ```
 */
export function splitStages(schedule: Schedule, ranges: number): Schedule {
  validate(schedule);
  checkWhole("splitStages", { ranges });
  const { stages, microbatches } = sizesOf(schedule);
  checkCells(`${schedule.name} in ${ranges} ranges a stage`, stages * ranges, microbatches);
  const own = Array.from({ length: ranges }, (_, range) => range), reversed = own.toReversed();
  const actions = schedule.actions.map((list) =>
    list.flatMap(({ kind, stage, microbatches }): Action[] =>
      (kind === "F" ? own : reversed).map((range) => ({ kind, stage: stage * ranges + range, microbatches }))
    )
  );
  return { ...schedule, placement: schedule.placement.flatMap((rank) => own.map(() => rank)), actions };
}

/** In how many ranges the stages of a placement are: the largest number that all runs of stages on one rank are a multiple of. */
export function rangesOf(placement: readonly number[]): number {
  const divisor = (a: number, b: number): number => b === 0 ? a : divisor(b, a % b);
  let ranges = 0, begun = 0;
  for (let stage = 1; stage <= placement.length; stage++) {
    if (placement[stage] === placement[begun]) continue;
    ranges = divisor(ranges, stage - begun);
    begun = stage;
  }
  return ranges === placement.length ? 1 : ranges; // all on one rank: as many alike
}
