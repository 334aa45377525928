/** Random tiny pipelines, and `search()` on them against trying everything: for the tests, and for `.ci/search_proofs.ts`. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Costs } from "../../lib/schedules/price/costs.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { branchAndBound } from "../../lib/schedules/search/branch_and_bound.ts";
import { bounds } from "../../lib/schedules/search/lower_bound.ts";
import { problemOf } from "../../lib/schedules/search/setup.ts";
import { search } from "../../lib/schedules/search/search.ts";
import { evaluate } from "../../lib/schedules/search/state.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { leastTime, peakOf, type Step, type Tiny } from "../reference/every_order.ts";

/** A placement, and a number of micro-batches. */
export type Shape = readonly [placement: readonly number[], microbatches: number];

export const upTo = (most: number) => fc.integer({ min: 0, max: most });
/** More often nothing than something. */
const seldom = (most: number) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: upTo(most) });

/** Tiny pipelines of some shapes, with messages that take so much. */
export function tinyOf(
  shapes: readonly Shape[],
  messages: fc.Arbitrary<number>,
  whole: fc.Arbitrary<number | undefined> = fc.constant(undefined),
): fc.Arbitrary<Tiny> {
  return fc.constantFrom(...shapes).chain(([placement, microbatches]) => {
    const devices = Math.max(...placement) + 1;
    const stage = fc.record({
      F: upTo(4),
      I: upTo(4),
      W: upTo(4),
      B: upTo(9),
      sum: seldom(5),
      activations: upTo(3),
      whole,
      released: upTo(3),
      derivatives: upTo(3),
      workspace: fc.record({ F: seldom(3), I: seldom(3), W: seldom(4), B: upTo(5) }),
      messages: fc.record({ F: messages, I: messages }),
      input: fc.record({ F: seldom(2), I: seldom(2) }),
      parameters: seldom(3),
      losses: seldom(2),
      held: seldom(2),
    }).map(({ released, input: { F, I }, ...stage }) => {
      const { activations, derivatives, whole = activations } = stage;
      // Inputs are among what is kept.
      const input = { F: Math.min(F, activations, whole), I: Math.min(I, derivatives) };
      return { ...stage, released: Math.min(released, activations), input };
    });
    const rank = fc.record({
      down: seldom(3),
      up: seldom(3),
      tail: seldom(3),
      after: fc.oneof({ weight: 4, arbitrary: fc.constant([] as number[]) }, {
        weight: 1,
        arbitrary: fc.subarray([...Array(devices).keys()]),
      }),
    });
    const of = <Each>(each: fc.Arbitrary<Each>, count: number) =>
      fc.array(each, { minLength: count, maxLength: count });
    return fc.record({
      microbatches: fc.constant(microbatches),
      placement: fc.constant(placement),
      stages: of(stage, placement.length),
      ranks: of(rank, devices),
      room: fc.integer({ min: -1, max: 5 }),
      together: fc.boolean(),
    }).map(({ room, ...rest }) => {
      const tiny = {
        ...rest,
        ranks: rest.ranks.map((rank, own) => ({ ...rank, after: rank.after.filter((other) => other !== own) })),
        cap: 0,
      };
      // Around what a single micro-batch needs: there the cap matters.
      const single = { ...tiny, microbatches: 1 };
      const least = tiny.ranks.map((_, own) => {
        const stages = [...placement.keys()].filter((s) => placement[s] === own);
        const steps: Step[] = [
          ...stages.map((stage): Step => ({ kind: "F", stage })),
          ...[...stages].reverse().flatMap((stage): Step[] => [{ kind: "I", stage }, { kind: "W", stage }]),
        ];
        const losses = stages.reduce((sum, s) => sum + tiny.stages[s].losses * (microbatches - 1), 0);
        return peakOf(single, own, steps) + losses;
      });
      return { ...tiny, cap: Math.max(0, Math.max(...least) + room) };
    });
  });
}

/** Its costs, for the library. */
export const costsOf = ({ stages, ranks, together }: Tiny): Costs => ({
  duration: ({ kind, stage }) => stages[stage][kind as "F"],
  transfer: (from, _, kind) => kind === "F" ? ranks[from].down : ranks[from].up,
  tail: (rank) => ranks[rank].tail,
  tailAfter: (rank) => ranks[rank].after,
  tailTogether: together,
  ...(stages.some(({ sum }) => sum > 0) ? { sum: (stage) => stages[stage].sum } : {}),
});

/** Its memory. */
export const memoryOf = ({ stages }: Tiny): Memory => (stage) => ({ ...stages[stage], sum: stages[stage].held });

/** Searches. */
export function run(tiny: Tiny) {
  const { placement, microbatches, cap } = tiny;
  // A small budget: a tenth of it goes to annealing, whether or not these sizes need it.
  const budget = 30_000;
  return search({ placement, microbatches, cap, costs: costsOf(tiny), memory: memoryOf(tiny), budget });
}

/** What a refusal says would do; undefined where nothing is refused. */
export async function leastNamed(tiny: Tiny): Promise<number | undefined> {
  try {
    await run(tiny);
  } catch (error) {
    assert.equal((error as Error).name, "UserError", (error as Error).stack);
    const [, least] = /^A cap of \d+ is too small: rank \d needs (\d+) for a single micro-batch$/.exec(
      (error as Error).message,
    )!;
    return Number(least);
  }
}

/** What a search finds must be what it says, and optimal. */
export async function compare(tiny: Tiny): Promise<void> {
  const { cap, microbatches, placement } = tiny;
  const found = await run(tiny);
  validate(found.schedule);
  const peaks = found.schedule.actions.map((list, rank) => peakOf(tiny, rank, list as readonly Step[]));
  assert.ok(Math.max(...peaks) <= cap, `peaks ${peaks}`);
  assert.deepEqual(peakMemory(found.schedule, memoryOf(tiny)), peaks);
  assert.equal(simulate(found.schedule, costsOf(tiny)).makespan, found.makespan);
  const optimum = leastTime(tiny);
  assert.ok(found.proven && found.lowerBound === found.makespan, "proven");
  assert.equal(found.makespan, optimum);
  const problem = problemOf(placement, microbatches, costsOf(tiny), memoryOf(tiny), cap);
  const { bound, raise } = bounds(problem);
  assert.ok(bound <= optimum, `a lower bound of ${bound}, and ${optimum} is possible`);
  for (const { bound: raised } of raise(2 * optimum + 1, 300)) {
    assert.ok(raised <= optimum * (1 + 1e-9), `a raised bound of ${raised}, and ${optimum} is possible`);
  }
  // A proof must not lean on what the heuristics have found before it.
  let best = Infinity;
  for (const order of branchAndBound(problem, Infinity)) if (order) best = evaluate(problem, order);
  assert.equal(best, optimum, "by branch and bound alone");
}
