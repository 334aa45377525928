import assert from "node:assert/strict";
import { test } from "node:test";
import { overlaps, withContention } from "../../lib/schedules/price/contention.ts";
import { stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { follow } from "../reference/contention.ts";

for (const name of ["naive", "gpipe", "1f1b-1", "1f1b-2"]) {
  for (const devices of [2, 3, 4]) {
    const base = generate(name, { devices });
    for (const schedule of [base, twoStage(base)]) {
      test(`${name} on ${devices} contending devices${schedule.policy ? " with 2BP" : ""} takes what it takes from event to event`, () => {
        const costs = stageCosts(Array.from({ length: devices }, (_, stage) => ({ f: 1 + stage / 7, i: 1.3, w: 0.8 })));
        for (const slowdown of [1, 1.04, 1.3]) {
          const spans = follow(
            schedule,
            (rank, index) => costs.duration(schedule.actions[rank][index], rank, index),
            1 - 1 / slowdown,
          );
          const expected = Math.max(...spans.flat().map(({ end }) => end));
          const { makespan } = simulate(schedule, withContention(schedule, costs, slowdown));
          assert.ok(Math.abs(makespan - expected) < 1e-4 * expected, `${makespan} for ${expected} at ${slowdown}`);
        }
      });
    }
  }
}

test("overlaps() is 0 where ranks take turns and 1 where they never do", () => {
  const naive = generate("naive", { devices: 3 });
  assert.deepEqual(overlaps(naive, simulate(naive)).flat(), [0, 0, 0, 0, 0, 0]);
  const gpipe = generate("gpipe", { devices: 2, microbatches: 4 });
  const shares = overlaps(gpipe, simulate(gpipe, unitCosts()));
  assert.deepEqual(shares.map((list) => list.slice(0, 4)), [[0, 1, 1, 1], [1, 1, 1, 0]]);
});

test("withContention() leaves costs alone at a slowdown of 1, and refuses less", () => {
  const schedule = generate("gpipe", { devices: 2 });
  const costs = unitCosts();
  assert.equal(withContention(schedule, costs, 1), costs);
  assert.throws(() => withContention(schedule, costs, 0.9), /1 or more/);
});
