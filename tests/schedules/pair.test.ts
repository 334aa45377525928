import assert from "node:assert/strict";
import { test } from "node:test";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { pairOf, schedulePair } from "../../lib/schedules/transforms/pair.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { everyPolicy } from "./support.ts";

test("wholeBackward() takes back what twoStage() did, whatever the policy and width", () => {
  for (const name of scheduleNames) {
    const base = generate(name, { devices: 3, microbatches: 6 });
    if (sizesOf(base).split) continue;
    for (const policy of everyPolicy({ every: [2], cap: [100] })) {
      for (const width of [1, 2]) assert.deepEqual(wholeBackward(twoStage(base, { policy, width })), base);
    }
  }
});

test("every schedule of the zoo has a pair: F and B on the same ranks against F, I and W, in the same order", () => {
  for (const name of scheduleNames) {
    for (const devices of [1, 2, 3, 4]) {
      const { base, split } = schedulePair(name, { devices });
      for (const each of [base, split]) validate(each);
      const [without, with_] = [sizesOf(base), sizesOf(split)];
      assert.deepEqual([without.split, with_.split], [false, true], name);
      assert.equal(without.microbatches, with_.microbatches);
      assert.deepEqual(base.placement, split.placement);
      assert.equal(base.actions.flat().length, 2 * without.stages * without.microbatches);
      const order = split.actions.map((list) =>
        list.filter(({ kind }) => kind !== "W").map(({ kind, ...rest }) => ({
          ...rest,
          kind: kind === "F" ? "F" : "B",
        }))
      );
      assert.deepEqual(base.actions.map((list) => list.map(({ kind, ...rest }) => ({ ...rest, kind }))), order, name);
    }
  }
});

test("without its split, ZB-H1 is 1F1B; a schedule that is split by itself stays as it is, whatever the policy", () => {
  const split = generate("zb-h1", { devices: 4 });
  assert.deepEqual(wholeBackward(split).actions, generate("1f1b", { devices: 4 }).actions);
  assert.equal(simulate(wholeBackward(split)).makespan, 33);
  assert.equal(pairOf(split, { policy: "end" }).split, split);
});

test("GPipe has its weight gradients at the end in one W, as in the 2BP paper; the others fill", () => {
  const { split } = schedulePair("gpipe", { devices: 4 });
  assert.deepEqual([split.policy, sizesOf(split).width], ["end", 4]);
  for (const name of ["naive", "1f1b-1", "1f1b-2", "1f1b", "interleaved-1f1b"]) {
    const { split } = schedulePair(name, { devices: 4 });
    assert.deepEqual([split.policy, sizesOf(split).width], ["fill", 1]);
  }
});
