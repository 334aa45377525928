/** The models of the 2BP paper as they were run, and what policy `paper` takes of memory. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { paperRuns } from "../../lib/measure/paper_runs.ts";
import { targetsOf } from "../../lib/models/model.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { paperSchedules } from "../../lib/schedules/transforms/pair.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { assertSameGradients } from "../runtime/support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

test("the batches of the 2BP paper can be cut into the micro-batches of its schedules, on 2 and on 4 ranks", () => {
  const samples = paperRuns.map((run) => paperSchedules.map((name) => run.samples(name, 4)));
  assert.deepEqual(samples, [[8, 8, 8, 8], [4, 4, 4, 8], [8, 8, 8, 16], [8, 8, 8, 16], [8, 32, 32, 64]]);
  for (const run of paperRuns) {
    for (const name of paperSchedules) {
      for (const devices of [2, 4]) {
        const { microbatches } = sizesOf(generate(name, { devices }));
        assert.equal(run.samples(name, devices) % microbatches, 0, `${run.model}, ${name} on ${devices}`);
      }
    }
  }
});

test("the memory of every full-size model of the 2BP paper is predicted on 4 ranks, for its schedules with policy paper", async () => {
  for (const { model, optimizer, precision, samples } of paperRuns) {
    for (const name of paperSchedules) {
      const schedule = twoStage(generate(name, { devices: 4 }), { policy: "paper" });
      const { microbatches } = sizesOf(schedule);
      const peaks = await predictMemory(createModel(model), schedule, samples(name, 4) / microbatches, {
        optimizer,
        precision,
      });
      assert.equal(peaks.length, 4);
      for (const { categories, total } of peaks) {
        assert.ok(
          total > categories.parameters + categories.gradients + categories.optimizer && total < 80 * 2 ** 30,
          `${model}, ${name}`,
        );
      }
    }
  }
});

test("policy paper holds no less than fill and lean on any rank, of llama-tiny on 4 ranks", async () => {
  for (const name of ["1f1b-1", "1f1b-2"]) {
    const base = generate(name, { devices: 4 });
    const peaksOf = async (schedule: Schedule) =>
      (await predictMemory(createModel("llama-tiny"), schedule, 4, { optimizer: adamw() })).map(({ total }) => total);
    const paper = await peaksOf(twoStage(base, { policy: "paper" }));
    for (const policy of ["fill", "lean"] as const) {
      (await peaksOf(twoStage(base, { policy }))).forEach((peak, rank) =>
        assert.ok(peak <= paper[rank], `${name}, ${policy}, rank ${rank}: ${peak}, ${paper[rank]} with paper`)
      );
    }
    // It is the W at the end that takes more: one by one they take what they take with fill.
    const narrow = await peaksOf(twoStage(base, { policy: "paper", width: 1 }));
    assert.deepEqual(narrow, await peaksOf(twoStage(base, { policy: "fill" })));
  }
});

for (const { twin, samples, optimizer, precision } of paperRuns.slice(1)) { // the first two have one twin
  test(`${twin} has the same loss and gradients in the order of the 2BP paper as without 2BP, and is trained as its model was`, async () => {
    const model = createModel(twin);
    const base = generate("1f1b-1", { devices: 2 });
    const split = twoStage(base, { policy: "paper" });
    const batch = await sourceFor(model, undefined, 1).source.next(samples("1f1b-1", 2));
    const f32 = createPipeline(set, model, { optimizer, seed: 3 });
    const run = async (schedule: Schedule) => {
      const { loss } = await f32.step(schedule, batch, { optimize: false });
      return { loss, gradients: await f32.gradients() };
    };
    const expected = await run(base), actual = await run(split);
    f32.close();
    const chance = Math.log(targetsOf(model, 2).below!);
    assert.ok(Math.abs(expected.loss - chance) < 0.1 * chance, `${expected.loss}, by chance ${chance}`);
    assert.ok(Math.abs(actual.loss - expected.loss) <= 1e-6 * expected.loss, `${actual.loss}, not ${expected.loss}`);
    assertSameGradients(actual.gradients, expected.gradients, 1e-5, twin);
    if (precision === "mixed" && !set.devices.every(({ gpu }) => gpu.info.f16)) return;
    const asRun = createPipeline(set, model, { optimizer, precision, seed: 3 });
    const { loss, skipped } = await asRun.step(split, batch);
    asRun.close();
    assert.ok(!skipped && Math.abs(loss - expected.loss) < 1e-3 * expected.loss, `${loss} in ${precision}`);
  });
}
