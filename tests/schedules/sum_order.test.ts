/** Policies of 2BP where gradients are summed over replicas: against every place of W, and against themselves without the sums. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { type Costs, stageCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { PolicyText, Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { weightPlaces } from "../reference/every_weight_place.ts";
import { names, random, slowMakespan } from "./support.ts";

/** Costs at random with sums up to so many times as long as an action, a B as long as its I and W. */
function drawn(next: () => number, stages: number, longest: number, tails = false): Costs {
  const each = Array.from({ length: stages }, () => ({ f: 0.3 + next(), i: 0.3 + next(), w: 0.2 + next() }));
  const sums = each.map(() => longest * next());
  return { ...stageCosts(each, 0.1), sum: (stage) => sums[stage], ...tails && { tailTogether: true, tail: () => 0.5 } };
}
const without = ({ sum: _, ...costs }: Costs): Costs => costs;
const lengthOf = (schedule: Schedule, costs: Costs) => simulate(schedule, costs).makespan;

test("with several stages a rank, fill misses the best place of all W by less than 2 % on average, and by more than 8 % without looking at sums", () => {
  const next = random(31);
  const cases = [["interleaved-1f1b", 1, 1, 4, 8], ["interleaved-1f1b", 1, 2, 2, 8], ["dualpipe-v", 1, 2, 2, 8], [
    "interleaved-1f1b",
    2,
    2,
    2,
    2,
  ]] as const;
  let [missed, blind, gained, count] = [0, 0, 0, 0];
  for (const [name, devices, microbatches, chunks, turns] of cases) {
    const base = wholeBackward(generate(name, { devices, microbatches, ...name === "interleaved-1f1b" && { chunks } }));
    const lists = base.actions.map(weightPlaces);
    for (let turn = 0; turn < turns; turn++) {
      const costs = drawn(next, base.placement.length, 4);
      const best = bestPlace(base, lists, costs);
      const found = lengthOf(twoStage(base, { costs }), costs);
      const ignoring = lengthOf(twoStage(base, { costs: without(costs) }), costs);
      assert.ok(found <= ignoring * (1 + 1e-9), `${name}: ${found}, and ${ignoring} without`);
      if (found < ignoring * (1 - 1e-9)) gained++;
      missed += found / best - 1;
      blind += ignoring / best - 1;
      count++;
    }
  }
  assert.ok(
    missed / count < 0.02 && blind / count > 0.08,
    `misses the best by ${missed / count}, and ${blind / count}`,
  );
  assert.ok(gained > count / 3, `${gained} of ${count} gain`);
});

/** The least makespan over all places of W. */
function bestPlace(
  base: Schedule,
  places: readonly (readonly Schedule["actions"][number][])[],
  costs: Costs,
  chosen: Schedule["actions"] = [],
): number {
  if (chosen.length === places.length) return lengthOf({ ...base, actions: chosen }, costs);
  return Math.min(...places[chosen.length].map((list) => bestPlace(base, places, costs, [...chosen, list])));
}

test("no policy that looks at costs makes a step longer than without looking at sums, on any schedule", () => {
  const next = random(32);
  let shorter = 0;
  for (const name of names) {
    const base = wholeBackward(generate(name, { devices: 4, microbatches: 8 }));
    for (const [longest, width] of [[2, 1], [12, 2]]) {
      const costs = drawn(next, base.placement.length, longest, next() < 0.5);
      const plain = lengthOf(base, costs);
      for (const policy of ["fill", "select", "cap:40"] as PolicyText[]) {
        const seeing = twoStage(base, { policy, width, costs }),
          blind = twoStage(base, { policy, width, costs: without(costs) });
        validate(seeing);
        const [one, other] = [seeing, blind].map((each) => lengthOf(each, costs));
        assert.ok(Math.abs(one - slowMakespan(seeing, costs)) < 1e-9 * one, `${name} ${policy}`);
        assert.ok(one <= other * (1 + 1e-9), `${name} ${policy} ${width}: ${one}, and ${other} without`);
        if (policy !== "cap:40") {
          assert.ok(one <= plain * (1 + 1e-9), `${name} ${policy}: ${one}, and ${plain} without 2BP`);
        }
        if (one < other * (1 - 1e-9)) shorter++;
      }
      const [lean, fill] = (["lean", "fill"] as const).map((policy) =>
        lengthOf(twoStage(base, { policy, width, costs }), costs)
      );
      assert.ok(lean <= fill * (1 + 1e-9), `${name}: lean ${lean}, fill ${fill}`);
    }
    assert.ok(sizesOf(base).microbatches === 8);
  }
  assert.ok(shorter > 10, `${shorter} are shorter`);
});
