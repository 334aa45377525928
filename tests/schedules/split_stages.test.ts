import assert from "node:assert/strict";
import { test } from "node:test";
import { fromCsv, toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { type StageCost, stageCosts, unitCosts } from "../../lib/schedules/price/costs.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { recomputeAhead } from "../../lib/schedules/transforms/recompute_ahead.ts";
import { rangesOf, splitStages } from "../../lib/schedules/transforms/split_stages.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { lists, names, random, slowMakespan } from "./support.ts";

/** Costs of random ranges, and of the stages that they are of. */
function randomCosts(stages: number, ranges: number, next: () => number): { ranges: StageCost[]; stages: StageCost[] } {
  const parts = Array.from({ length: stages * ranges }, () => {
    const r = next() < 0.5 ? 0 : next(), i = r + next(), w = next();
    return { f: next(), i, w, b: i + w, r };
  });
  const whole = Array.from({ length: stages }, (_, stage) => {
    const own = parts.slice(stage * ranges, (stage + 1) * ranges);
    const sum = (kind: "f" | "i" | "w" | "b" | "r") => own.reduce((all, each) => all + each[kind], 0);
    return { f: sum("f"), i: sum("i"), w: sum("w"), b: sum("b"), r: sum("r") };
  });
  return { ranges: parts, stages: whole };
}

test("a step in ranges of layers is as long as before, and by an independent simulator too", () => {
  const next = random(3);
  for (const name of names) {
    for (const [devices, ranges] of [[2, 2], [3, 3], [4, 2]]) {
      const base = generate(name, { devices }), comm = next();
      for (const each of [base, recomputeAhead(base)]) {
        const costs = randomCosts(base.placement.length, ranges, next);
        const before = simulate(each, stageCosts(costs.stages, comm)).makespan;
        const inRanges = splitStages(each, ranges), priced = stageCosts(costs.ranges, comm);
        const after = simulate(inRanges, priced).makespan;
        assert.ok(Math.abs(after - before) < 1e-9 * before, `${name} on ${devices}: ${after}, before ${before}`);
        if (each !== base) continue; // an R shortens its backward, which only the simulator knows
        assert.ok(Math.abs(slowMakespan(inRanges, priced) - before) < 1e-9 * before, `${name} on ${devices}, relaxed`);
      }
    }
  }
});

test("by hand: each range's W has a place of its own, the last layers' first", () => {
  const base = generate("1f1b-1", { devices: 2 }), costs = unitCosts({ f: 0.5, i: 0.5 });
  const { placement, actions } = twoStage(splitStages(base, 2), { costs });
  assert.deepEqual(placement, [0, 0, 1, 1]);
  // Rank 0 is idle from 4 to 5, for the W of one range. On rank 1 nothing is.
  assert.deepEqual(
    actions,
    lists(
      "0F0 1F0 0F1 1F1 1I0 0I0 1W0 1I1 0I1 0W0 1W1 0W1",
      "2F0 3F0 3I0 2I0 2F1 3F1 3I1 2I1 3W0 2W0 3W1 2W1",
    ),
  );
});

test("where a W is longer than what is idle, its ranges are not: 1F1B on four ranks is a twelfth shorter", () => {
  const base = generate("1f1b-1", { devices: 4 });
  const whole = unitCosts({ w: 2, comm: 0.5 }), half = unitCosts({ f: 0.5, i: 0.5, w: 1, comm: 0.5 });
  assert.equal(simulate(base, whole).makespan, simulate(splitStages(base, 2), half).makespan);
  assert.equal(simulate(twoStage(base, { costs: whole }), whole).makespan, 24);
  assert.equal(simulate(twoStage(splitStages(base, 2), { costs: half }), half).makespan, 22);
});

test("a stage in ranges holds as much, and a range gives back its own part", () => {
  const base = generate("gpipe", { devices: 2 }), split = twoStage(base, { policy: "every:1" });
  const whole = () => ({ activations: 4, derivatives: 2 }), half = () => ({ activations: 2, derivatives: 1 });
  assert.deepEqual(peakMemory(splitStages(split, 2), half), peakMemory(split, whole));
  // I 3 of the last layers, its W, and then of the others: one derivative less at once.
  const early = splitStages(base, 2).actions.map((list) =>
    list.flatMap((action) =>
      action.kind === "B" ? (["I", "W"] as const).map((kind) => ({ ...action, kind })) : [action]
    )
  );
  const inTurn = { ...splitStages(base, 2), actions: early };
  assert.deepEqual(peakMemory(inTurn, half), peakMemory(split, whole).map((amount) => amount - 1));
});

test("ranges are read from a placement, and survive a CSV file", () => {
  for (const name of names) {
    const base = generate(name, { devices: 4 });
    assert.equal(rangesOf(base.placement), 1, name);
    for (const ranges of [2, 3, 4]) {
      const { placement, actions } = splitStages(base, ranges), back = fromCsv(toCsv({ ...base, placement, actions }));
      assert.equal(rangesOf(placement), ranges, name);
      assert.deepEqual([back.placement, back.actions], [placement, actions]);
    }
  }
  assert.equal(rangesOf([0, 0, 0]), 1);
});

test("ranges that are none are refused in one line", () => {
  const base = generate("1f1b-1", { devices: 2 });
  assert.throws(() => splitStages(base, 0), {
    name: "UserError",
    message: "splitStages needs a whole number of ranges, 1 or more; got 0",
  });
  assert.throws(() => splitStages({ ...base, actions: [[], []] }, 2), /^UserError: /);
  assert.throws(
    () => splitStages(generate("1f1b-1", { devices: 64, microbatches: 1024 }), 65),
    /^UserError: 1f1b-1 in 65 ranges a stage would have 4160 stages x 1024 micro-batches; at most 4194304/,
  );
  assert.deepEqual(splitStages(base, 1).actions, base.actions);
});
