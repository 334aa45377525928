import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { LlamaConfiguration } from "../../lib/models/llama.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { fromCsv } from "../../lib/schedules/csv/csv.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { splitStages } from "../../lib/schedules/transforms/split_stages.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { everySplit } from "../schedules/support.ts";
import { aligned, assertSameGradients, deep, type Gradients, randomBatch, tiny, tinyModel } from "./support.ts";

const optimizer = sgd({ learningRate: 0.1 });
const names = ["naive", "gpipe", "1f1b-1", "1f1b-2"];
let sets: Record<"one" | "real" | "virtual", DeviceSet>;

before(async () => {
  sets = {
    one: await openDevices(1),
    real: await openDevices(2),
    virtual: await openDevices(4, { virtual: true }),
  };
});
after(() => Object.values(sets).forEach((set) => set.close()));

/** Loss and gradients of the whole batch in one pass on one device. */
async function fullBatch(configuration: LlamaConfiguration, sequences: number) {
  const pipeline = createPipeline(sets.one, tinyModel(configuration), { optimizer });
  const schedule = generate("naive", { devices: 1 });
  const { loss } = await pipeline.step(schedule, randomBatch(configuration, sequences), { optimize: false });
  const gradients = await pipeline.gradients();
  pipeline.close();
  return { loss, gradients };
}

async function assertEqualsFullBatch(
  pipeline: Pipeline,
  configuration: LlamaConfiguration,
  sequences: number,
  schedule: Schedule,
  expected: { loss: number; gradients: Gradients },
) {
  const what = `${schedule.name}, ${schedule.policy ?? "without 2BP"}, width ${sizesOf(schedule).width}`;
  pipeline.clearGradients();
  const { loss } = await pipeline.step(schedule, randomBatch(configuration, sequences), { optimize: false });
  assert.ok(
    Math.abs(loss - expected.loss) <= 1e-5 * expected.loss,
    `${what}: loss ${loss} instead of ${expected.loss}`,
  );
  assertSameGradients(await pipeline.gradients(), expected.gradients, 1e-5, what);
}

for (const [mode, devices] of [["real", 2], ["virtual", 4]] as const) {
  for (const [half, [sizes, configuration]] of ([["odd", tiny], ["touching", aligned]] as const).entries()) {
    // On four devices each order is run with one of the two sizes, on two with both.
    const isRun = (index: number) => devices === 2 || index % 2 === half;
    const which = devices === 2
      ? "every schedule, policy and width"
      : `every schedule, half of the policies and widths`;
    test(`${which} equals one full-batch pass on ${devices} ${mode} devices, ${sizes} slots`, async () => {
      const set = sets[mode];
      const sequences = 2 * devices;
      const expected = await fullBatch(configuration, sequences);
      const pipeline = createPipeline(set, tinyModel(configuration), { optimizer });
      const before = set.devices.map(({ ledger }) => ledger.total());
      for (const name of names) {
        const base = generate(name, { devices });
        const widths = Array.from({ length: sizesOf(base).microbatches }, (_, before) => before + 1);
        for (const schedule of [base, ...everySplit(base, widths).filter((_, index) => isRun(index))]) {
          await assertEqualsFullBatch(pipeline, configuration, sequences, schedule, expected);
          assert.deepEqual(
            set.devices.map(({ ledger }) => ledger.total()),
            before,
            `${schedule.name} ${schedule.policy} ${sizesOf(schedule).width} leaves the ledger as it was`,
          );
        }
      }
      pipeline.close();
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), set.devices.map(() => 0));
    });
  }
}

for (const devices of [2, 4]) {
  test(`the whole zoo equals one full-batch pass on ${devices} real devices, as it is and with 2BP`, async () => {
    const microbatches = 2 * devices;
    const expected = await fullBatch(deep, microbatches);
    const set = devices === 2 ? sets.real : await openDevices(devices, { virtual: false });
    assert.equal(set.mode, "real");
    for (const name of scheduleNames) {
      const base = generate(name, { devices, microbatches });
      const schedules = sizesOf(base).split ? [base] : [base, twoStage(base, { width: 2 })];
      const pipeline = createPipeline(set, tinyModel(deep), { optimizer, placement: base.placement });
      for (const schedule of schedules) await assertEqualsFullBatch(pipeline, deep, microbatches, schedule, expected);
      pipeline.close();
    }
    assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), set.devices.map(() => 0));
    if (set !== sets.real) set.close();
  });
}

test("stages in ranges of layers, whose W run apart, equal one full-batch pass", async () => {
  const expected = await fullBatch(deep, 4);
  for (const name of ["gpipe", "1f1b-2", "interleaved-1f1b"]) {
    const base = splitStages(generate(name, { devices: 2, microbatches: 4 }), 2);
    const pipeline = createPipeline(sets.real, tinyModel(deep), { optimizer, placement: base.placement });
    const costs = unitCosts({ f: 0.5, i: 0.5, comm: 0.5 });
    for (const schedule of [base, twoStage(base, { costs }), twoStage(base, { policy: "select", costs, width: 2 })]) {
      await assertEqualsFullBatch(pipeline, deep, 4, schedule, expected);
    }
    pipeline.close();
  }
});

test("the kernels that a GPU is given compute the same gradients", async () => {
  const set = await openDevices(2);
  for (const { gpu } of set.devices) Object.assign(gpu.info, { software: false }); // what kernels are chosen by
  for (const configuration of [tiny, aligned]) {
    const expected = await fullBatch(configuration, 4);
    const pipeline = createPipeline(set, tinyModel(configuration), { optimizer });
    const schedule = twoStage(generate("1f1b-1", { devices: 2 }), { width: 2 });
    await assertEqualsFullBatch(pipeline, configuration, 4, schedule, expected);
    pipeline.close();
  }
  set.close();
});

test("a schedule read from PyTorch's CSV runs and equals one full-batch pass", async () => {
  const csv = new URL("../schedules/fixtures/ZBVZeroBubble.compute_only.csv", import.meta.url);
  const schedule = fromCsv(readFileSync(csv, "utf8"));
  const set = await openDevices(sizesOf(schedule).devices, { virtual: true });
  const { microbatches } = sizesOf(schedule);
  const expected = await fullBatch(deep, microbatches);
  const pipeline = createPipeline(set, tinyModel(deep), { optimizer, placement: schedule.placement });
  await assertEqualsFullBatch(pipeline, deep, microbatches, schedule, expected);
  pipeline.close();
  set.close();
});
