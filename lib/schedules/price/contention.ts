/** Devices that slow each other while they are busy at once: cores on one memory bus, GPUs on one card. */
import { UserError } from "../../errors.ts";
import { expectValue, type Rule } from "../../rules.ts";
import type { Schedule } from "../schedule.ts";
import { aheadOf, type Costs } from "./costs.ts";
import { priced, type Simulation, type Span, spansOf, timesOf } from "./simulate.ts";
import { checkSpans } from "../check/spans.ts";
import { lower, type Program } from "../program.ts";

/** Rounds after which stretched actions are taken to have settled: at a slowdown of 1.3 four leave 5e-5, ten 2e-8. */
const rounds = 12;

const slowdownRule: Rule = {
  right: "a finite number, 1 or more",
  accepts: (value) => Number.isFinite(value) && (value as number) >= 1,
};

/**
 * Of each action, by rank and position: how busy the other ranks are while it runs, 0 to 1, averaged over its time and over
 * them. Optimizer steps do not count.
 *
 * @throws {UserError} What `validate()` says of the schedule, and for a simulation of another one.
 */
export function overlaps(schedule: Schedule, { spans }: Simulation): number[][] {
  const program = lower(schedule);
  checkSpans(program, spans);
  return sharesOf(program, spans);
}

/** {@link overlaps} of spans that are known to be those of a Program. */
function sharesOf({ schedule: { actions }, first }: Program, spans: readonly Span[]): number[][] {
  const lists = actions.map((_, rank) => spans.slice(first[rank], first[rank + 1]));
  return lists.map((list, rank) => {
    const shared = new Array<number>(list.length).fill(0);
    for (const [other, others] of lists.entries()) {
      if (other === rank) continue;
      let next = 0;
      for (const [index, { start, end }] of list.entries()) {
        while (next < others.length && others[next].end <= start) next++;
        for (let at = next; at < others.length && others[at].start < end; at++) {
          shared[index] += Math.min(end, others[at].end) - Math.max(start, others[at].start);
        }
      }
    }
    return shared.map((time, index) => {
      const length = list[index].end - list[index].start;
      return length > 0 && lists.length > 1 ? time / length / (lists.length - 1) : 0;
    });
  });
}

/**
 * Costs on devices that slow each other: an action takes `slowdown` times as long while all other ranks are busy, and is
 * delayed in proportion while some of them are. Transfers and optimizer steps stay as they are.
 *
 * @param schedule The one that the costs are for.
 * @param slowdown A finite number, 1 or more; 1 changes nothing.
 * @throws {UserError} For any other slowdown, and what `simulate()` says of the schedule and its costs.
 *
 * @example
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { unitCosts, withContention } from "twobp/schedules";
 *
 * const schedule = generate("gpipe", { devices: 2, microbatches: 4 });
 * const alone = simulate(schedule).makespan;
 * const together = simulate(schedule, withContention(schedule, unitCosts(), 1.1)).makespan;
 * console.log(alone, together > alone && together < 1.1 * alone); // 15 true
 * ```
 */
export function withContention(schedule: Schedule, costs: Costs, slowdown: number): Costs {
  expectValue("withContention: slowdown", slowdown, slowdownRule);
  const program = priced(schedule, "withContention", costs);
  const lost = 1 - 1 / slowdown;
  let stretched = costs;
  for (let round = 0; round < rounds && lost > 0; round++) {
    const { starts, ends } = timesOf(program, stretched);
    const shares = sharesOf(program, spansOf(program, starts, ends));
    stretched = {
      ...costs,
      duration(action, rank, index) {
        const share = shares[rank]?.[index];
        if (share === undefined) {
          throw new UserError(`These costs are for ${schedule.name} alone, which they were made for`);
        }
        const time = costs.duration(action, rank, index), off = aheadOf(costs, program, action, rank, time);
        // What an R has done ahead of it is not there to be stretched.
        return off + (time - off) / (1 - lost * share);
      },
    };
  }
  return stretched;
}
