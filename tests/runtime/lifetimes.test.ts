import assert from "node:assert/strict";
import process from "node:process";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { llama } from "../../lib/models/llama.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline, type Pipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import type { Batch } from "../../lib/train/data.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { aligned, randomBatch, tiny, tinyModel } from "./support.ts";

const optimizer = sgd({ learningRate: 0.1 });
const schedule = generate("1f1b-1", { devices: 2 });
const batch = randomBatch(tiny, 4);
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

/** Every call of a pipeline that looks at its values or changes them. */
const calls: Readonly<Record<string, (pipeline: Pipeline) => Promise<unknown>>> = {
  step: (pipeline) => pipeline.step(schedule, batch),
  parameters: (pipeline) => pipeline.parameters(),
  gradients: (pipeline) => pipeline.gradients(),
  state: (pipeline) => pipeline.state(),
  setParameters: (pipeline) => Promise.resolve().then(() => pipeline.setParameters(new Map())),
  setState: (pipeline) => Promise.resolve().then(() => pipeline.setState(new Map())),
  clearGradients: (pipeline) => Promise.resolve().then(() => pipeline.clearGradients()),
};
const closing = { close: (pipeline: Pipeline) => Promise.resolve().then(() => pipeline.close()) };

async function assertRefused(pipeline: Pipeline, message: RegExp, which = Object.entries(calls)) {
  for (const [name, call] of which) await assert.rejects(call(pipeline), { name: "UserError", message }, name);
}

test("during a step every other call is refused, and the step is none the worse for it", async () => {
  const [pipeline, alone] = [
    createPipeline(set, tinyModel(), { optimizer }),
    createPipeline(set, tinyModel(), { optimizer }),
  ];
  await alone.step(schedule, batch);
  const running = pipeline.step(schedule, batch);
  await assertRefused(
    pipeline,
    /^The pipeline is in a step: await that before asking for /,
    Object.entries({ ...calls, ...closing }),
  );
  await running;
  assert.deepEqual(await pipeline.parameters(), await alone.parameters());
  pipeline.close();
  alone.close();
});

test("while values are read nothing may change them, and others may read", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  const reading = pipeline.parameters();
  const { parameters: _p, gradients: _g, state: _s, ...changing } = calls;
  await assertRefused(
    pipeline,
    /^The pipeline is being read: await that before asking for /,
    Object.entries({ ...changing, ...closing }),
  );
  assert.deepEqual(await pipeline.parameters(), await reading);
  await pipeline.step(schedule, batch);
  pipeline.close();
});

test("a closed pipeline refuses every call, and closing it again does nothing", async () => {
  const before = set.devices.map(({ ledger }) => ledger.total());
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  await pipeline.step(schedule, batch);
  pipeline.close();
  pipeline.close();
  await assertRefused(pipeline, /^The pipeline is closed: asking it for .* is too late$/);
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), before);
});

test("on closed devices no pipeline is made, one that is open refuses every call, and closing it and them goes any number of times", async () => {
  const own = await openDevices(2);
  const pipeline = createPipeline(own, tinyModel(), { optimizer });
  await pipeline.step(schedule, batch);
  own.close();
  own.close();
  await assertRefused(pipeline, /^The devices are closed/);
  assert.throws(() => createPipeline(own, tinyModel(), { optimizer }), {
    name: "UserError",
    message: /^The devices are closed/,
  });
  pipeline.close();
  pipeline.close();
});

test("devices that are closed during a step fail it with a reason, and nothing hangs", async () => {
  const own = await openDevices(2);
  const pipeline = createPipeline(own, tinyModel(), { optimizer });
  const running = pipeline.step(schedule, batch);
  own.close();
  await assert.rejects(running, /closed/);
  await assert.rejects(pipeline.step(schedule, batch), /closed/);
  pipeline.close();
});

test("devices that are closed while the update is on its way leave no rejection that nobody handles", async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on("unhandledRejection", note);
  try {
    for (const rank of [0, 1]) {
      for (const when of ["before", "after"]) {
        const own = await openDevices(2);
        const pipeline = createPipeline(own, tinyModel(), { optimizer });
        const device = own.devices[rank];
        const commit = device.commit.bind(device);
        device.commit = (...args) => {
          if (when === "before") own.close();
          const committed = commit(...args);
          own.close();
          return committed;
        };
        await assert.rejects(pipeline.step(schedule, batch), /^Error: The pipeline cannot go on: .*closed/);
        await assert.rejects(pipeline.step(schedule, batch), /closed/);
        pipeline.close();
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(unhandled, []);
  } finally {
    process.off("unhandledRejection", note);
  }
});

test("a model that does not fit, or whose pipeline is closed, can be placed again, and starts anew", async () => {
  const model = tinyModel();
  assert.throws(() => createPipeline(set, model, { optimizer, budget: 5000 }), /exceed the budget of 5000/);
  const losses = [];
  for (let time = 0; time < 2; time++) {
    const pipeline = createPipeline(set, model, { optimizer });
    losses.push((await pipeline.step(schedule, batch)).loss);
    pipeline.close();
  }
  assert.equal(losses[1], losses[0]);
});

const networks: Readonly<Record<string, () => [Model, (seed: number) => Batch]>> = {
  "a language model with tied parameters": () => [
    llama("tied", { ...aligned, tied: true }),
    (seed) => randomBatch(aligned, 4, seed),
  ],
  "a ResNet": () => [
    resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 }),
    (seed) => syntheticImages({ size: 8, classes: 3, seed }).next(4),
  ],
};

for (const [name, make] of Object.entries(networks)) {
  test(`${name} can be in two pipelines at once: each trains as if alone, bit for bit, and its memory can be predicted meanwhile`, async () => {
    const free = set.devices.map(({ ledger }) => ledger.total());
    const split = twoStage(schedule);
    // Other seeds, optimizers, schedules and batches, and one of the two recomputes.
    const recipes: readonly [PipelineOptions, Schedule, number][] = [
      [{ optimizer: adamw(), seed: 1 }, split, 10],
      [{ optimizer: sgd({ learningRate: 0.1, momentum: 0.9 }), seed: 2, recompute: "both" }, schedule, 20],
    ];
    const steps = 3;
    /** What a step leaves, and its loss. */
    const after = async (pipeline: Pipeline, plan: Schedule, batch: Batch) => {
      await pipeline.step(plan, batch, { optimize: false });
      const gradients = await pipeline.gradients();
      const { loss } = await pipeline.step(plan, batch);
      return { loss, gradients, parameters: await pipeline.parameters(), state: await pipeline.state() };
    };
    const [, batchOf] = make();
    const alone = [];
    for (const [options, plan, seed] of recipes) {
      const pipeline = createPipeline(set, make()[0], options);
      for (let step = 0; step < steps; step++) alone.push(await after(pipeline, plan, batchOf(seed + step)));
      pipeline.close();
    }
    const [model] = make();
    const predict = () => predictMemory(model, split, 2, { optimizer: adamw() });
    const predicted = await predict();
    const pipelines = recipes.map(([options]) => createPipeline(set, model, options));
    for (let step = 0; step < steps; step++) {
      for (const [index, [, plan, seed]] of recipes.entries()) {
        const together = await after(pipelines[index], plan, batchOf(seed + step));
        assert.deepEqual(together, alone[index * steps + step], `pipeline ${index}, step ${step}`);
        assert.deepEqual(await predict(), predicted);
      }
    }
    pipelines[0].close();
    const [, [, plan]] = recipes;
    assert.ok((await pipelines[1].step(plan, batchOf(1))).loss > 0, "the other goes on");
    pipelines[1].close();
    assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), free);
  });
}

test("pipelines on the same devices take turns, each under its own budget", async () => {
  set.devices.forEach(({ pool }) => pool.trim());
  const free = createPipeline(set, tinyModel(), { optimizer });
  const tight = createPipeline(set, tinyModel(), { optimizer, budget: 200_000 });
  const large = randomBatch(tiny, 64);
  await free.step(schedule, large);
  await assert.rejects(tight.step(schedule, large), /exceed the budget of 200000/);
  const running = free.step(schedule, large);
  const refused = { name: "UserError", message: /^Rank 0 is in a step of another pipeline: await that before/ };
  await assert.rejects(tight.step(schedule, batch), refused);
  assert.throws(() => createPipeline(set, tinyModel(), { optimizer }), refused);
  await running;
  await tight.step(schedule, batch);
  tight.close();
  await free.step(schedule, large);
  free.close();
});
