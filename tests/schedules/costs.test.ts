import assert from "node:assert/strict";
import { test } from "node:test";
import { stageCosts, unitCosts, withHostOverhead, withLinks, withStall } from "../../lib/schedules/price/costs.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { schedule } from "./support.ts";

test("B costs I plus W unless it is given, and a wide W what its function says", () => {
  const costs = stageCosts([{ f: 1, i: 2, w: 4 }, { f: 1, i: 2, w: (width) => 3 + width, b: 5 }]);
  const duration = (kind: "F" | "I" | "W" | "B", stage: number, ...microbatches: number[]) =>
    costs.duration({ kind, stage, microbatches }, stage, 0);
  assert.deepEqual([duration("F", 0, 0), duration("I", 0, 0), duration("W", 0, 0), duration("W", 0, 0, 1, 2)], [
    1,
    2,
    4,
    12,
  ]);
  assert.deepEqual([duration("B", 0, 0), duration("B", 1, 0), duration("W", 1, 0), duration("W", 1, 0, 1)], [
    6,
    5,
    4,
    5,
  ]);
});

test("a link takes latency plus bytes over bandwidth, each its own, and none inside a rank", () => {
  const link = (from: number, to: number) => from < to ? { latency: 1, bandwidth: 10 } : { latency: 2, bandwidth: 5 };
  const costs = withLinks(unitCosts(), link, { F: 20, I: 10 });
  assert.equal(costs.transfer!(0, 1, "F"), 3);
  assert.equal(costs.transfer!(1, 0, "I"), 4);
  assert.equal(costs.transfer!(1, 1, "F"), 0);
  assert.equal(simulate(generate("naive", { devices: 3 }), costs).makespan, 9 + 2 * 3 + 2 * 4);
});

test("a transfer occupies neither rank", () => {
  const both = generate("gpipe", { devices: 2, microbatches: 3 });
  // Activations 1 and 2 are on their way while rank 0 goes on; only the first and the last transfer are waited for.
  assert.equal(simulate(both, unitCosts({ comm: 10 })).makespan, simulate(both).makespan + 2 * 10);
});

test("the host's overhead counts for every action, so that a wide W pays it once", () => {
  const costs = withHostOverhead(unitCosts(), 0.25);
  assert.equal(simulate(schedule(["0F0 0F1 0I0 0I1 0W0 0W1"]), costs).makespan, 6 + 6 * 0.25);
  assert.equal(simulate(schedule(["0F0 0F1 0I0 0I1 0W0+1"]), costs).makespan, 6 + 5 * 0.25);
});

test("a stall after each backward of the last rank lengthens 1F1B by one for each micro-batch, and nothing that is split", () => {
  // Its last rank is busy from the first forward that comes to it to its last backward; then its gradient goes back up.
  for (const devices of [2, 3, 4, 8]) {
    const base = generate("1f1b-1", { devices }), microbatches = devices;
    for (const time of [0, 0.25, 3]) {
      const costs = withStall(unitCosts(), devices - 1, time);
      assert.equal(simulate(base, costs).makespan, (microbatches + devices - 1) * 3 + microbatches * time);
      const split = twoStage(base);
      assert.equal(simulate(split, costs).makespan, simulate(split).makespan);
    }
  }
  assert.equal(simulate(generate("naive", { devices: 4 }), withStall(unitCosts(), 1, 5)).makespan, 12 + 5);
  assert.throws(
    () => withStall(unitCosts(), 0, -1),
    /^UserError: The time of a stall must be a finite number, 0 or more, not -1$/,
  );
});
