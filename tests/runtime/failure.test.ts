import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "./support.ts";

const optimizer = sgd({ learningRate: 0.1 });
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const inUse = () => set.devices.map(({ ledger }) => ledger.total());

test("a loss that is not a number stops the step with rank and action named, and changes nothing", async () => {
  const model = tinyModel();
  const pipeline = createPipeline(set, model, { optimizer });
  const schedule = generate("1f1b-1", { devices: 2 });
  const batch = randomBatch(tiny, 4);
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const untouched = await pipeline.parameters();
  const before = inUse();
  pipeline.setParameters(new Map(untouched).set("norm.weight", new Float32Array(tiny.width).fill(NaN)));
  await assert.rejects(
    pipeline.step(schedule, batch),
    /^RankError: Rank 1 failed at 1F0: the loss of the micro-batch is NaN$/,
  );
  assert.deepEqual(inUse(), before);
  pipeline.setParameters(untouched);
  assert.deepEqual(await pipeline.parameters(), untouched);
  assert.equal((await pipeline.step(schedule, batch)).loss, loss);
  pipeline.close();
});

test("a rank that fails stops the others, names itself and its action, and the next step works", async () => {
  const model = tinyModel();
  const parts = partition(model, 2);
  let broken = false;
  const fragile: Layer = {
    ...parts[1][0],
    backwardInput(dx, dy, saved) {
      if (broken) throw new Error("the layer is broken");
      parts[1][0].backwardInput(dx, dy, saved);
    },
  };
  const pipeline = createPipeline(set, model, { optimizer, parts: [parts[0], [fragile, ...parts[1].slice(1)]] });
  const schedule = twoStage(generate("1f1b-2", { devices: 2 }), { width: 2 });
  const batch = randomBatch(tiny, 4);
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const before = inUse();
  broken = true;
  await assert.rejects(pipeline.step(schedule, batch), /^RankError: Rank 1 failed at 1I0: the layer is broken$/);
  assert.deepEqual(inUse(), before);
  broken = false;
  assert.equal((await pipeline.step(schedule, batch, { optimize: false })).loss, loss);
  assert.deepEqual(inUse(), before);
  pipeline.close();
});

test("whatever a layer throws, no rank waits for ever: the step fails with rank and action named", async () => {
  const model = tinyModel();
  const [[first, ...others], last] = partition(model, 2);
  let thrown: { what: unknown } | undefined;
  const fragile: Layer = {
    ...first,
    forward(y, x, saved) {
      if (thrown) throw thrown.what;
      first.forward(y, x, saved);
    },
  };
  const pipeline = createPipeline(set, model, { optimizer, parts: [[fragile, ...others], last] });
  const schedule = generate("1f1b-1", { devices: 2 });
  const step = () => pipeline.step(schedule, randomBatch(tiny, 4), { optimize: false });
  const { loss } = await step();
  for (
    const [what, said] of [
      [null, "null"],
      [undefined, "undefined"],
      ["text", "text"],
      ["", "unknown error"],
      [Object.create(null), "unknown error"],
      [{ message: 5 }, "5"],
    ]
  ) {
    thrown = { what };
    await assert.rejects(step, { name: "RankError", message: `Rank 0 failed at 0F0: ${said}` });
    thrown = undefined;
    assert.equal((await step()).loss, loss);
  }
  pipeline.close();
});

test("ids, targets and schedule are those that a step was given, whatever their owner does with them meanwhile", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  const made = () => ({
    schedule: structuredClone(twoStage(generate("1f1b-1", { devices: 2 }))),
    batch: randomBatch(tiny, 4),
  });
  const { schedule, batch } = made();
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const gradients = await pipeline.gradients();
  type Made = ReturnType<typeof made>;
  const changes: Readonly<Record<string, (made: Made) => void>> = {
    "other ids": ({ batch: { inputs } }) => inputs.fill(3),
    "ids beyond the vocabulary": ({ batch: { inputs } }) => inputs.fill(1e6),
    "other targets": ({ batch: { targets } }) => targets.fill(0),
    "ids that are gone": ({ batch: { inputs } }) =>
      void structuredClone(inputs, { transfer: [inputs.buffer as ArrayBuffer] }),
    "fewer actions": ({ schedule: { actions } }) => void (actions[0] as unknown[]).splice(2),
    "other micro-batches": ({ schedule: { actions } }) => void ((actions[1][2].microbatches as number[])[0] = 1),
    "another placement": ({ schedule: { placement } }) => void (placement as number[]).reverse(),
  };
  for (const [name, change] of Object.entries(changes)) {
    const given = made();
    const running = pipeline.step(given.schedule, given.batch, { optimize: false });
    change(given);
    assert.equal((await running).loss, loss, name);
    assert.deepEqual(await pipeline.gradients(), gradients, name);
  }
  pipeline.close();
});

test("a schedule or batch that does not fit the pipeline is refused before anything runs", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  const before = inUse();
  await assert.rejects(pipeline.step(generate("gpipe", { devices: 4 }), randomBatch(tiny, 4)), {
    name: "UserError",
    message: "Schedule gpipe is for 4 stages on 4 ranks, the pipeline has 2 on 2",
  });
  await assert.rejects(pipeline.step(generate("gpipe", { devices: 2 }), randomBatch(tiny, 3)), {
    name: "UserError",
    message: "A batch of 3 samples cannot be cut into 2 equal micro-batches",
  });
  for (const none of [null, undefined, "1f1b-1"]) {
    await assert.rejects(pipeline.step(none as never, randomBatch(tiny, 4)), {
      name: "UserError",
      message: /^A schedule must be what generate\(\) or fromCsv\(\) returns, not /,
    });
  }
  assert.deepEqual(inUse(), before);
  pipeline.close();
});

test("a schedule with another placement than the pipeline's is refused, on real and on virtual devices", async () => {
  const virtual = await openDevices(2, { virtual: true });
  try {
    for (const devices of [set, virtual]) {
      for (
        const [placement, name] of [[[0, 1, 1, 0], "interleaved-1f1b"], [[0, 1, 0, 1], "zb-v"], [
          [0, 0, 1, 1],
          "zb-v",
        ]] as const
      ) {
        const schedule = generate(name, { devices: 2, microbatches: 4 });
        const pipeline = createPipeline(devices, tinyModel(), { optimizer, placement });
        await assert.rejects(pipeline.step(schedule, randomBatch(tiny, 4)), {
          name: "UserError",
          message: `Schedule ${name} has its stages on ranks ${schedule.placement}, the pipeline on ${placement}: ` +
            "make the pipeline with the schedule's placement",
        });
        pipeline.close();
      }
    }
  } finally {
    virtual.close();
  }
});

test("a model with fewer layers than stages is refused", () => {
  assert.throws(() => partition(tinyModel(), 7), {
    name: "UserError",
    message: "tiny has 6 layers, which cannot be cut into 7 stages",
  });
});

test("options of a step that it has not, or that are no yes or no, and a loss scale in f32 are refused", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer });
  const schedule = generate("1f1b-1", { devices: 2 }), batch = randomBatch(tiny, 4);
  for (const options of [{ optimise: false }, { optimize: "no" }, { accumulate: 1 }] as object[]) {
    await assert.rejects(pipeline.step(schedule, batch, options), { name: "UserError", message: /^step: / });
  }
  pipeline.close();
  assert.throws(() => createPipeline(set, tinyModel(), { optimizer, lossScale: 2 }), {
    name: "UserError",
    message: 'A loss scale is for precision "mixed": in f32 the loss is not scaled',
  });
});
