/** A time that no step of a recipe can be shorter than, for a hundredth of what making its schedule takes. */
import { type Costs, durationOf, tailOf } from "../schedules/price/costs.ts";
import { timesOf } from "../schedules/price/simulate.ts";
import type { Program } from "../schedules/program.ts";
import type { Action } from "../schedules/schedule.ts";

/**
 * The makespan of a schedule that is not split: it is what it is (with `mixed`, as if no message waited for another). Of one that 2BP is applied to, the longer of two: its F and I in
 * their order as if W took no time; and of the rank with most to do, all of its work after its first action can begin.
 *
 * @param program Of the schedule before 2BP.
 * @param mixed Whether backwards may stay whole where that takes less.
 */
export function leastTime(program: Program, costs: Costs, split: boolean, mixed: boolean): number {
  // Where messages wait for one another, a step can get shorter by what takes longer: as if they did not.
  const { sum, line: _, ...free } = costs;
  if (!split) return timesOf(program, mixed ? { ...free, sum } : costs).makespan;
  const { schedule: { actions }, first } = program;
  const partOf = (action: Action, kind: "I" | "W", rank: number) =>
    durationOf(costs, { kind, stage: action.stage, microbatches: action.microbatches }, rank, 0);
  // In another order of W the sums have another order too, so that they are left out.
  const { starts, makespan } = timesOf(program, {
    ...free,
    duration: (action, rank, at) => {
      if (action.kind !== "B") return costs.duration(action, rank, at);
      const i = partOf(action, "I", rank);
      return mixed ? Math.min(i, durationOf(costs, action, rank, at)) : i;
    },
  });
  return actions.reduce((least, list, rank) => {
    let end = starts[first[rank]] + tailOf(costs, rank);
    for (const [at, action] of list.entries()) {
      if (action.kind !== "B") end += durationOf(costs, action, rank, at);
      else {
        const both = partOf(action, "I", rank) + partOf(action, "W", rank);
        end += mixed ? Math.min(both, durationOf(costs, action, rank, at)) : both;
      }
    }
    return Math.max(least, end);
  }, makespan);
}
