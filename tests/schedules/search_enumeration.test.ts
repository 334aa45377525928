/** `search()` against trying everything: random costs, links, tails, memory and caps of tiny pipelines; `.ci/search_proofs.ts` tries more. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../lib/errors.ts";
import { stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { Action } from "../../lib/schedules/schedule.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { search } from "../../lib/schedules/search/search.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { leastTime, lists, type Step } from "../reference/every_order.ts";
import { compare, leastNamed, memoryOf, run, type Shape, tinyOf, upTo } from "./search_cases.ts";
import { random } from "./support.ts";

/** One stage a rank. */
const linear: Shape[] = [[[0], 1], [[0], 4], [[0, 1], 1], [[0, 1], 2], [[0, 1], 3], [[0, 1, 2], 1], [[0, 1, 2], 2]];
/** Several, dealt out in turn, down and up again, and unevenly. */
const several: Shape[] = [[[0, 0], 1], [[0, 0, 0], 1], [[0, 1, 0], 1], [[0, 1, 1, 0], 1], [[0, 1, 0, 1], 1], [
  [1, 0, 0],
  1,
]];

test("search() finds the least makespan under a cap, with workspace, tails, sums over replicas, links and memory of each rank's own", async () => {
  let [refused, bound] = [0, 0];
  await fc.assert(
    fc.asyncProperty(tinyOf(linear, fc.constant(0)), async (tiny) => {
      const least = await leastNamed(tiny);
      if (least !== undefined) {
        refused++;
        assert.equal(leastTime(tiny), Infinity, "an order keeps the cap that is refused");
        tiny = { ...tiny, cap: least };
      } else if (leastTime({ ...tiny, cap: 1e9 }) < leastTime(tiny)) bound++;
      await compare(tiny);
    }),
    { seed: 12, numRuns: 80 },
  );
  assert.ok(refused > 3 && bound > 3, `${refused} refused, ${bound} bound by the cap`);
});

test("search() finds the least makespan with several stages a rank, however they are placed", async () => {
  let [refused, bound] = [0, 0];
  await fc.assert(
    fc.asyncProperty(tinyOf(several, upTo(2)), async (tiny) => {
      const least = await leastNamed(tiny);
      if (least !== undefined) {
        refused++;
        tiny = { ...tiny, cap: least };
      } else if (leastTime({ ...tiny, cap: 1e9 }) < leastTime(tiny)) bound++;
      await compare(tiny);
    }),
    { seed: 15, numRuns: 80 },
  );
  assert.ok(refused > 1 && bound > 3, `${refused} refused, ${bound} bound by the cap`);
});

test("search() counts messages under way as peakMemory() does", async () => {
  await fc.assert(
    fc.asyncProperty(tinyOf(linear, upTo(3)), async (tiny) => {
      const least = await leastNamed(tiny);
      await compare(least === undefined ? tiny : { ...tiny, cap: least });
    }),
    { seed: 13, numRuns: 60 },
  );
});

test("where a whole backward has its F keep something else, search() keeps the cap, and what it calls proven is", async () => {
  let [proven, count] = [0, 0];
  await fc.assert(
    fc.asyncProperty(tinyOf(linear, fc.constant(0), upTo(4)), async (tiny) => {
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
    { seed: 14, numRuns: 60 },
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
  const none = { F: 0, I: 0 };
  const stage = {
    F: 10,
    I: 15,
    W: 4,
    B: 19,
    sum: 0,
    activations: 2,
    released: 0,
    derivatives: 1,
    workspace: { F: 0, I: 0, W: 1, B: 2 },
    messages: none,
    input: none,
    parameters: 0,
    losses: 0,
    held: 0,
  };
  const stages = [stage, stage, stage], ranks = stages.map(() => ({ tail: 0, after: [], down: 3, up: 3 }));
  const optimum = leastTime({ microbatches: 2, placement: [0, 1, 2], stages, ranks, together: false, cap: 5 });
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

test("search() never claims too much where messages queue for their line and ranks take time to agree", async () => {
  const next = random(31), draw = (most: number) => 1 + Math.floor(next() * most);
  const placement = [0, 1], microbatches = 2;
  const stage = { sum: 0, activations: 0, released: 0, derivatives: 0, workspace: { F: 0, I: 0, W: 0, B: 0 } };
  const none = { messages: { F: 0, I: 0 }, input: { F: 0, I: 0 }, parameters: 0, losses: 0, held: 0 };
  const stages = placement.map(() => ({ F: 1, I: 1, W: 1, B: 2, ...stage, ...none }));
  const ranks = placement.map(() => ({ tail: 0, after: [], down: 0, up: 0 }));
  const tiny = { microbatches, placement, stages, ranks, together: true, cap: Infinity };
  /** The k-th of a kind is that of micro-batch k, and a W that of the first whose I waits. */
  const actionsOf = (list: readonly Step[]) => {
    const ran = { F: 0, I: 0 }, waiting: number[] = [];
    return list.map(({ kind, stage }): Action => {
      const at = kind === "F" ? ran.F++ : kind === "W" ? waiting.shift()! : ran.I++;
      if (kind === "I") waiting.push(at);
      return { kind, stage, microbatches: [at] };
    });
  };
  const [first, last] = placement.map((rank) => lists(tiny, rank).map(actionsOf));
  let queued = 0;
  for (let turn = 0; turn < 5; turn++) {
    const base = stageCosts(placement.map(() => ({ f: draw(3), i: draw(3), w: draw(3) })), draw(4));
    const free = { ...base, tail: () => 1, tailTogether: true };
    const costs = { ...free, line: () => 1 + turn, agreement: turn % 3 };
    let least = Infinity;
    for (const one of first) {
      for (const other of last) {
        try {
          least = Math.min(least, simulate({ name: "tried", placement, actions: [one, other] }, costs).makespan);
        } catch (error) {
          if (!(error instanceof UserError)) throw error; // it hangs
        }
      }
    }
    const { schedule, makespan, lowerBound, proven } = await search({ placement, microbatches, costs });
    if (makespan > simulate(schedule, free).makespan) queued++;
    assert.equal(makespan, simulate(schedule, costs).makespan);
    assert.ok(lowerBound <= least + 1e-9 && makespan >= least - 1e-9, `${lowerBound} to ${makespan}, and ${least}`);
    assert.ok(!proven || Math.abs(makespan - least) < 1e-9, `${makespan} is proven, and ${least} can be had`);
  }
  assert.ok(queued > 2, `${queued}`);
});
