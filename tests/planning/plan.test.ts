/** Plans for models: predicted peaks within the budget, and a run that keeps it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseBytes } from "../../lib/bytes.ts";
import { UserError } from "../../lib/errors.ts";
import { openDevices } from "../../lib/gpu/devices.ts";
import { blankBatch, predictMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { plan } from "../../lib/planning/plan.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";

const mib = 2 ** 20;

test("the less memory there is, the longer the step, and no peak is beyond the budget", async () => {
  const model = createModel("llama-tiny");
  const sizes = { devices: 4, microbatches: 8, samples: 4 };
  const unlimited = await plan(model, { ...sizes, budget: Infinity });
  assert.equal(unlimited.makespan, unlimited.unlimited.makespan);
  let before = unlimited.makespan;
  for (const budget of [16 * mib, 12 * mib, 10 * mib, 8.5 * mib]) {
    const { schedule, peak, makespan, recompute, parts } = await plan(model, { ...sizes, budget });
    validate(schedule);
    assert.ok(peak.every((bytes) => bytes <= budget), `${budget}: ${peak}`);
    assert.ok(makespan >= before * (1 - 1e-9), `${budget}: ${makespan} after ${before}`);
    assert.equal(recompute.length, sizesOf(schedule).stages);
    assert.deepEqual(parts.flat(), model.layers);
    before = makespan;
  }
  assert.ok(before > 1.1 * unlimited.makespan, `8.5 MiB cost only ${before / unlimited.makespan}`);
});

test("what stages recompute runs ahead of their backwards, by which the step is shorter", async () => {
  const model = createModel("llama-tiny"), samples = 4;
  const { schedule, makespan, recompute, parts, sums } = await plan(model, {
    ...{ devices: 4, microbatches: 8, samples, budget: 9 * mib },
  });
  const costs = stageCosts(stageWork(model, { parts, samples, recompute, sums }));
  assert.equal(makespan, simulate(schedule, costs).makespan);
  const isAhead = (stage: number) => /^(activations|both)/.test(recompute[stage]);
  for (const [rank, list] of schedule.actions.entries()) {
    const count = (stage: number, kinds: string) =>
      list.filter((action) => action.stage === stage && kinds.includes(action.kind)).length;
    for (const [stage, at] of schedule.placement.entries()) {
      if (at === rank) assert.equal(count(stage, "R"), isAhead(stage) ? count(stage, "IB") : 0, `stage ${stage}`);
    }
  }
  assert.ok(schedule.placement.some((_, stage) => isAhead(stage)));
  const without = { ...schedule, actions: schedule.actions.map((list) => list.filter(({ kind }) => kind !== "R")) };
  assert.ok(
    makespan < 0.995 * simulate(without, costs).makespan,
    `${makespan} of ${simulate(without, costs).makespan}`,
  );
});

test("a budget that nothing keeps: one line with the least that would do, and that does", async () => {
  const model = createModel("mamba-tiny");
  const sizes = { devices: 2, microbatches: 4, samples: 2 };
  const error = await plan(model, { ...sizes, budget: mib }).catch((error) => error);
  assert.ok(error instanceof UserError);
  const [, least] = /the least that would do is ([\d.]+MiB)$/.exec(error.message) ?? [];
  assert.ok(least, error.message);
  const { peak } = await plan(model, { ...sizes, budget: parseBytes(least) });
  assert.ok(Math.max(...peak) > 0.97 * parseBytes(least), `${peak} of ${least}`);
  await assert.rejects(plan(model, { ...sizes, budget: parseBytes(least) - 0.1 * mib }), /that would do is/);
});

test("what was planned is what a step on shapes needs, to the byte", async () => {
  const model = createModel("llama-tiny");
  for (const budget of [Infinity, 12 * mib, 8.5 * mib]) {
    const { schedule, parts, recompute, sums, peak } = await plan(model, {
      ...{ devices: 4, microbatches: 8, samples: 4, budget },
    });
    const peaks = await predictMemory(model, schedule, 4, { optimizer: adamw(), parts, recompute, sums });
    assert.deepEqual(peaks.map(({ needed }) => needed), peak);
  }
});

test("a planned step runs within its budget, in mixed precision too where the device has f16", async () => {
  const set = await openDevices(2);
  const { software, subgroupSize, f16 } = set.devices[0].gpu.info;
  try {
    for (const precision of ["f32", ...(f16 ? ["mixed" as const] : [])] as const) {
      const model = createModel("llama-tiny");
      const budget = (precision === "f32" ? 14 : 11) * mib;
      const options = { devices: 2, microbatches: 4, samples: 4, budget, precision, software, subgroupSize };
      const { schedule, parts, recompute, sums, peak } = await plan(model, options);
      const pipeline = createPipeline(set, model, {
        optimizer: adamw(),
        placement: schedule.placement,
        parts,
        recompute,
        sums,
        precision,
        budget,
      });
      const batch = blankBatch(model, 16);
      await pipeline.step(schedule, batch);
      const { peaks } = await pipeline.step(schedule, batch);
      for (const [rank, { needed }] of peaks.entries()) {
        assert.ok(
          needed <= budget && Math.abs(needed / peak[rank] - 1) < 0.02,
          `rank ${rank}: ${needed}, ${peak[rank]}`,
        );
      }
      pipeline.close();
    }
  } finally {
    set.close();
  }
});
