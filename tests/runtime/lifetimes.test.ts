import assert from "node:assert/strict";
import process from "node:process";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "./support.ts";

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
  setParameters: (pipeline) => Promise.resolve().then(() => pipeline.setParameters(new Map())),
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
  const { parameters: _p, gradients: _g, ...changing } = calls;
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

test("a model is in one pipeline at a time, and free again when that is closed or could not be made", async () => {
  const model = tinyModel();
  assert.throws(() => createPipeline(set, model, { optimizer, budget: 5000 }), /exceed the budget of 5000/);
  const pipeline = createPipeline(set, model, { optimizer });
  const taken = {
    name: "UserError",
    message: 'tiny is in a pipeline already, with "embedding.weight": close that pipeline, or make the model anew',
  };
  assert.throws(() => createPipeline(set, model, { optimizer }), taken);
  await assert.rejects(predictMemory(model, schedule, 1, { optimizer }), taken);
  const { loss } = await pipeline.step(schedule, batch);
  pipeline.close();
  assert.throws(() => model.layers[0].parameters[0].value, /"embedding.weight" is not placed/);
  const again = createPipeline(set, model, { optimizer });
  assert.equal((await again.step(schedule, batch)).loss, loss);
  again.close();
});

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
