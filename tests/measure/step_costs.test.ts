/** Costs measured in a few steps: those of every kind of action, and what is chosen by them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import { createCostCollector, simulatorCosts } from "../../lib/measure/costs.ts";
import { measureStepCosts } from "../../lib/measure/step_costs.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { Action, Kind, Schedule } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { createModel } from "../../lib/models/registry.ts";

test("measured costs know every kind of action, and what select makes of them is no slower in them", async () => {
  const set = await openDevices(2, { virtual: true });
  const base = generate("1f1b-2", { devices: 2 });
  const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw(), placement: base.placement });
  const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
  const given = { source, samples: 1, repeats: 2, width: 2 };
  try {
    const costs = await measureStepCosts(set, pipeline, base, { ...given, transfer: () => 7 });
    assert.equal(costs.transfer!(0, 1, "F"), 7);
    for (const rank of [0, 1]) {
      const time = (kind: "F" | "I" | "W" | "B", width = 1) =>
        costs.duration({ kind, stage: rank, microbatches: [0, 1, 2].slice(0, width) }, rank, 0);
      const times = [time("F"), time("I"), time("W"), time("B"), time("W", 2), time("W", 3)];
      assert.ok(times.every((each) => each > 0 && each < 60_000), `${times} ms`);
    }
    const select = twoStage(base, { policy: "select", costs });
    assert.ok(simulate(select, costs).makespan <= simulate(base, costs).makespan);
    assert.ok(Number.isFinite((await pipeline.step(select, source.next(4))).loss));
    const link = await measureStepCosts(set, pipeline, base, { source, samples: 1, repeats: 1 });
    assert.ok(link.transfer!(0, 1, "F") > 0, "messages are measured where nobody says what they take");
    await assert.rejects(measureStepCosts(set, pipeline, base, { ...given, repeats: 0 }), { name: "UserError" });
    const three = generate("1f1b-2", { devices: 3 });
    await assert.rejects(measureStepCosts(set, pipeline, three, given), { name: "UserError" });
  } finally {
    pipeline.close();
    set.close();
  }
});

test("what an R ran ahead is part of what its I or B costs, and is taken off where a schedule has one", () => {
  const collector = createCostCollector(1, 1);
  const list = (text: string) =>
    text.split(" ").map((cell): Action => ({ kind: cell[0] as Kind, stage: 0, microbatches: [Number(cell[1])] }));
  const enter = (text: string, lengths: number[]) => {
    const schedule: Schedule = { name: "made", placement: [0], actions: [list(text)] };
    collector.add(schedule, [lengths.map((end) => ({ start: 0, end }))]);
    return schedule;
  };
  const ahead = enter("F0 R0 I0 W0 F1 R1 I1 W1", [2, 3, 4, 5, 2, 3, 4, 5]);
  enter("F0 R0 B0 F1 B1", [2, 3, 8, 2, 12]); // of the one after its R 11 in all; where it was seen whole, that counts
  const measured = collector.costs();
  assert.deepEqual(measured.stages, [{ f: 2, i: 7, b: 12, w: { 1: 5 }, r: 3 }]);
  const costs = simulatorCosts(measured);
  assert.equal(simulate(ahead, costs).makespan, 2 * (2 + 3 + 4 + 5));
  const without = { ...ahead, actions: [list("F0 I0 W0 F1 I1 W1")] };
  assert.equal(simulate(without, costs).makespan, 2 * (2 + 7 + 5));
});
