import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { StepOptions } from "../../lib/runtime/step.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "./support.ts";

const optimizer = sgd({ learningRate: 0.1 });
let sets: Record<"real" | "virtual", DeviceSet>;
before(async () => {
  sets = { real: await openDevices(2), virtual: await openDevices(2, { virtual: true }) };
});
after(() => Object.values(sets).forEach((set) => set.close()));

const batch = randomBatch(tiny, 4);

for (const mode of ["real", "virtual"] as const) {
  test(`a stall lengthens a step by its time after each backward of its rank, and changes no bit, ${mode} devices`, async () => {
    const pipeline = createPipeline(sets[mode], tinyModel(), { optimizer });
    const schedule = generate("naive", { devices: 2, microbatches: 4 });
    const run = async (options: StepOptions = {}) => {
      pipeline.clearGradients();
      const { loss, wallMs } = await pipeline.step(schedule, batch, { optimize: false, ...options });
      return { loss, wallMs, gradients: await pipeline.gradients() };
    };
    const plain = [await run(), await run(), await run()];
    let ticks = 0;
    const clock = setInterval(() => ticks++, 5);
    const { loss, wallMs, gradients } = await run({ stall: { rank: 1, ms: 100 } });
    clearInterval(clock);
    const usual = Math.min(...plain.map((each) => each.wallMs));
    assert.ok(wallMs >= 4 * 100 && wallMs > usual + 300, `${wallMs} ms with four stalls, ${usual} ms without`);
    assert.ok(ticks > 20, `the host has ${ticks} turns meanwhile`);
    assert.equal(loss, plain[0].loss);
    assert.deepEqual(gradients, plain[0].gradients);
    pipeline.close();
  });
}

test("the other ranks go on during a stall: each gradient is taken as it comes", async () => {
  const model = tinyModel();
  const parts = partition(model, 2);
  const times: number[] = [];
  const watched: Layer = {
    ...parts[0][0],
    backwardInput(dx, dy, saved) {
      times.push(performance.now());
      parts[0][0].backwardInput(dx, dy, saved);
    },
  };
  const pipeline = createPipeline(sets.real, model, { optimizer, parts: [[watched, ...parts[0].slice(1)], parts[1]] });
  const schedule = generate("gpipe", { devices: 2, microbatches: 4 });
  await pipeline.step(schedule, batch, { optimize: false });
  times.length = 0;
  await pipeline.step(schedule, batch, { optimize: false, stall: { rank: 1, ms: 100 } });
  const end = performance.now();
  // Rank 0 records a backward when the one before is submitted, which has waited for the stall that its gradient came after.
  for (const stalls of [1, 2, 3]) {
    const left = end - times[stalls];
    assert.ok(left > 100 * (4 - stalls) - 20, `the backward after ${stalls} stalls begins ${left} ms before the end`);
  }
  pipeline.close();
});

test("a stall that is none is refused before anything runs", async () => {
  const pipeline = createPipeline(sets.real, tinyModel(), { optimizer });
  const schedule = generate("1f1b-1", { devices: 2 });
  const cases: [unknown, RegExp][] = [
    [{ rank: 2, ms: 1 }, /^UserError: step: stall: rank must be a whole number from 0 to 1, not 2$/],
    [{ rank: 0, ms: -1 }, /^UserError: step: stall: ms must be a number, 0 or more and below 2147483648, not -1$/],
    [{ rank: 0, ms: NaN }, /ms must be a number, 0 or more and below 2147483648, not NaN$/],
    [{ rank: 0, ms: 2 ** 31 }, /ms must be a number, 0 or more and below 2147483648, not 2147483648$/],
    [{ rank: 0 }, /ms must be a number, 0 or more and below 2147483648, not undefined$/],
    [{ rank: 0, ms: 1, time: 2 }, /^UserError: step: stall: there is no "time"; there are rank, ms$/],
    [null, /^UserError: step: stall takes an object with rank, ms, not null$/],
    [5, /^UserError: step: stall takes an object with rank, ms, not 5$/],
  ];
  for (const [stall, message] of cases) {
    await assert.rejects(pipeline.step(schedule, batch, { stall } as StepOptions), message);
  }
  await assert.rejects(
    pipeline.step(twoStage(schedule), batch, { stall: { rank: 1, ms: 1 } }),
    /^UserError: step: a stall follows each B of rank 1, and 1f1b-1 has none there: its backwards are split$/,
  );
  pipeline.close();
});
