/** Costs of a model on other numbers of ranks than it was measured on, against closed forms and counts by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { MeasuredStage } from "../../../lib/measure/costs.ts";
import { evenCosts } from "../../../lib/measure/paper/scaling.ts";
import { closedForm } from "../../../lib/measure/scaling.ts";
import { generate } from "../../../lib/schedules/generators/generate.ts";
import { simulate } from "../../../lib/schedules/price/simulate.ts";
import { paperSchedules } from "../../../lib/schedules/transforms/pair.ts";
import { twoStage } from "../../../lib/schedules/transforms/two_stage.ts";

const near = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) < 1e-9 * Math.abs(expected), `${actual}, not ${expected}`);

test("equal costs measured on 4 ranks give the closed forms on 8 and 16, in the paper's order", () => {
  const stage = { f: 2, i: 2, b: 4, w: { 1: 2, 4: 8 } };
  const measured = { stages: Array(4).fill(stage), optimizer: [0, 0, 0, 0] };
  for (const devices of [4, 8, 16]) {
    const costs = evenCosts(measured, devices);
    for (const name of paperSchedules) {
      const base = generate(name, { devices }), split = twoStage(base, { policy: "paper" });
      near(simulate(base, costs).makespan / simulate(split, costs).makespan, closedForm(name, devices)!.gain);
    }
  }
});

test("work is spread evenly, in proportion to the samples, and a W costs what lies between the widths that were measured", () => {
  const stages: MeasuredStage[] = [
    { f: 1, i: 0, b: 3, w: { 1: 3, 3: 6 } }, // 4.5 between, 2 for each micro-batch beyond
    { f: 3, i: 4, b: 9, w: { 2: 8 } }, // 4, of whatever width
  ];
  const costs = evenCosts({ stages, optimizer: [1, 3] }, 4, 0.5);
  const duration = (kind: "F" | "I" | "B" | "W", count = 1) =>
    costs.duration({ kind, stage: 2, microbatches: Array.from({ length: count }, (_, at) => at) }, 2, 0);
  near(duration("F"), 4 / 4 / 2);
  near(duration("I"), 4 / 4 / 2);
  near(duration("B"), 12 / 4 / 2);
  near(duration("W", 1), (3 + 4) / 4 / 2);
  near(duration("W", 2), (4.5 + 8) / 4 / 2);
  near(duration("W", 5), 5 * (2 + 4) / 4 / 2);
  near(costs.tail!(3), 4 / 4);
});
