/** `search()` against trying everything: random costs, links, tails, memory and caps of tiny pipelines. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Costs, unitCosts } from "../../lib/schedules/price/costs.ts";
import { branchAndBound } from "../../lib/schedules/search/branch_and_bound.ts";
import { lowerBound } from "../../lib/schedules/search/lower_bound.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { search } from "../../lib/schedules/search/search.ts";
import { evaluate, problemOf } from "../../lib/schedules/search/problem.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { leastTime, peakOf, type Tiny } from "../reference/every_order.ts";

const upTo = (most: number) => fc.integer({ min: 0, max: most });
/** More often nothing than something. */
const seldom = (most: number) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: upTo(most) });

function tinyOf(
  messages: fc.Arbitrary<number>,
  whole: fc.Arbitrary<number | undefined> = fc.constant(undefined),
): fc.Arbitrary<Tiny> {
  const sizes = fc.constantFrom([1, 1], [1, 4], [2, 1], [2, 2], [2, 3], [3, 1], [3, 2]);
  return sizes.chain(([devices, microbatches]) => {
    const rank = fc.record({
      F: upTo(4),
      I: upTo(4),
      W: upTo(4),
      B: upTo(9),
      down: seldom(3),
      up: seldom(3),
      tail: seldom(3),
      sum: seldom(5),
      after: fc.oneof({ weight: 4, arbitrary: fc.constant([] as number[]) }, {
        weight: 1,
        arbitrary: fc.subarray([...Array(devices).keys()]),
      }),
      activations: upTo(3),
      whole,
      released: upTo(3),
      derivatives: upTo(3),
      workspace: fc.record({ F: seldom(3), I: seldom(3), W: seldom(4), B: upTo(5) }),
      messages: fc.record({ F: messages, I: messages }),
      parameters: seldom(3),
      losses: seldom(2),
    }).map((rank) => ({ ...rank, released: Math.min(rank.released, rank.activations) }));
    const ranks = fc.array(rank, { minLength: devices, maxLength: devices });
    const room = fc.integer({ min: -1, max: 5 });
    return fc.record({ microbatches: fc.constant(microbatches), ranks, room, together: fc.boolean() })
      .map(({ room, ...rest }) => {
        const tiny = {
          ...rest,
          ranks: rest.ranks.map((rank, own) => ({ ...rank, after: [...rank.after].filter((other) => other !== own) })),
          cap: 0,
        };
        // Around what a single micro-batch needs: there the cap matters.
        const single = { ...tiny, microbatches: 1 };
        const least = Math.max(
          ...tiny.ranks.map(({ losses }, own) => peakOf(single, own, ["F", "I", "W"]) + losses * (microbatches - 1)),
        );
        return { ...tiny, cap: Math.max(0, least + room) };
      });
  });
}

const costsOf = ({ ranks, together }: Tiny): Costs => ({
  duration: ({ kind, stage }) => ranks[stage][kind as "F"],
  transfer: (from, _, kind) => kind === "F" ? ranks[from].down : ranks[from].up,
  tail: (rank) => ranks[rank].tail,
  tailAfter: (rank) => ranks[rank].after,
  tailTogether: together,
  ...(ranks.some(({ sum }) => sum > 0) ? { sum: (stage) => ranks[stage].sum } : {}),
});
const memoryOf = ({ ranks }: Tiny): Memory => (stage) => ranks[stage];

/** What a refusal says would do. */
async function leastNamed(tiny: Tiny): Promise<number | undefined> {
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

function run(tiny: Tiny) {
  const { microbatches, cap } = tiny;
  // A small budget: a tenth of it goes to annealing, whether or not these sizes need it.
  const budget = 30_000;
  return search({
    devices: tiny.ranks.length,
    microbatches,
    cap,
    costs: costsOf(tiny),
    memory: memoryOf(tiny),
    budget,
  });
}

async function compare(tiny: Tiny): Promise<void> {
  const { cap, microbatches, ranks } = tiny;
  const found = await run(tiny);
  validate(found.schedule);
  const peaks = found.schedule.actions.map((list, rank) => peakOf(tiny, rank, list.map(({ kind }) => kind as "F")));
  assert.ok(Math.max(...peaks) <= cap, `peaks ${peaks}`);
  assert.deepEqual(peakMemory(found.schedule, memoryOf(tiny)), peaks);
  assert.equal(simulate(found.schedule, costsOf(tiny)).makespan, found.makespan);
  const optimum = leastTime(tiny);
  assert.ok(found.proven && found.lowerBound === found.makespan, "proven");
  assert.equal(found.makespan, optimum);
  const problem = problemOf(ranks.length, microbatches, costsOf(tiny), memoryOf(tiny), cap);
  const bound = lowerBound(problem);
  assert.ok(bound <= optimum, `a lower bound of ${bound}, and ${optimum} is possible`);
  // A proof must not lean on what the heuristics have found before it.
  let best = Infinity;
  for (const order of branchAndBound(problem, Infinity)) if (order) best = evaluate(problem, order);
  assert.equal(best, optimum, "by branch and bound alone");
}

test("search() finds the least makespan under a cap, with workspace, tails, sums over replicas, links and memory of each rank's own", async () => {
  let [refused, bound] = [0, 0];
  await fc.assert(
    fc.asyncProperty(tinyOf(fc.constant(0)), async (tiny) => {
      const least = await leastNamed(tiny);
      if (least !== undefined) {
        refused++;
        assert.equal(leastTime(tiny), Infinity, "an order keeps the cap that is refused");
        tiny = { ...tiny, cap: least };
      } else if (leastTime({ ...tiny, cap: 1e9 }) < leastTime(tiny)) bound++;
      await compare(tiny);
    }),
    { seed: 12, numRuns: 200 },
  );
  assert.ok(refused > 10 && bound > 10, `${refused} refused, ${bound} bound by the cap`);
});

test("search() counts messages under way as peakMemory() does", async () => {
  await fc.assert(
    fc.asyncProperty(tinyOf(upTo(3)), async (tiny) => {
      const least = await leastNamed(tiny);
      await compare(least === undefined ? tiny : { ...tiny, cap: least });
    }),
    { seed: 13, numRuns: 200 },
  );
});

test("where a whole backward has its F keep something else, search() keeps the cap, and what it calls proven is", async () => {
  let [proven, count] = [0, 0];
  await fc.assert(
    fc.asyncProperty(tinyOf(fc.constant(0), upTo(4)), async (tiny) => {
      const least = await leastNamed(tiny);
      if (least !== undefined) assert.equal(leastTime(tiny), Infinity, "an order keeps the cap that is refused");
      const held = least === undefined ? tiny : { ...tiny, cap: least };
      const found = await run(held), optimum = leastTime(held);
      validate(found.schedule);
      assert.ok(Math.max(...peakMemory(found.schedule, memoryOf(held))) <= held.cap);
      assert.ok(found.lowerBound <= optimum && found.makespan >= optimum, `${optimum} is the least`);
      count++;
      if (!found.proven) return;
      proven++;
      assert.equal(found.makespan, optimum);
    }),
    { seed: 14, numRuns: 100 },
  );
  assert.ok(proven > count / 2, `${proven} of ${count} proven`);
});

test("search() keeps a cap that the workspace of W reaches", async () => {
  const memory: Memory = () => ({ activations: 1, derivatives: 1, workspace: { W: 3, B: 4 } });
  for (const [devices, makespans] of [[1, [12, 12, 12, 12]], [2, [20, 14, 13, 13]]] as const) {
    for (const [index, cap] of [5, 6, 7, 8].entries()) {
      const { schedule, makespan, proven } = await search({ devices, microbatches: 4, cap, memory });
      assert.ok(Math.max(...peakMemory(schedule, memory)) <= cap, `cap ${cap}`);
      assert.deepEqual([makespan, proven], [makespans[index], true], `cap ${cap}`);
    }
  }
  await assert.rejects(search({ devices: 2, microbatches: 4, cap: 4, memory }), /rank 0 needs 5 for a single/);
});

test("search() proves the same whatever the unit of time and of memory", async () => {
  const none = { tail: 0, sum: 0, B: 19, after: [], messages: { F: 0, I: 0 }, parameters: 0, losses: 0, released: 0 };
  const rank = {
    ...none,
    F: 10,
    I: 15,
    W: 4,
    down: 3,
    up: 3,
    activations: 2,
    derivatives: 1,
    workspace: { F: 0, I: 0, W: 1, B: 2 },
  };
  const optimum = leastTime({ microbatches: 2, ranks: [rank, rank, rank], together: false, cap: 5 });
  for (const scale of [1e-15, 1e-9, 1, 1e12]) {
    const costs = unitCosts({ f: 10 * scale, i: 15 * scale, w: 4 * scale, comm: 3 * scale });
    const memory: Memory = () => ({
      activations: 2 * scale,
      derivatives: scale,
      workspace: { W: scale, B: 2 * scale },
    });
    const { makespan, proven, schedule } = await search({ devices: 3, microbatches: 2, costs, memory, cap: 5 * scale });
    assert.ok(proven);
    assert.ok(
      Math.abs(makespan / scale / optimum - 1) < 1e-9,
      `${makespan / scale} at ${scale}, and ${optimum} is possible`,
    );
    assert.ok(Math.max(...peakMemory(schedule, memory)) <= 5 * scale * (1 + 1e-9));
  }
});
