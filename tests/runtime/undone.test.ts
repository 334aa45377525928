import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import type { Saved } from "../../lib/layers/saved.ts";
import { llama } from "../../lib/models/llama.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { createPipeline, type Pipeline, type PipelineOptions, type Precision } from "../../lib/runtime/pipeline.ts";
import { type Action, formatAction, type Schedule } from "../../lib/schedules/schedule.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { empty, release, sizeOf, toArray } from "../../lib/tensor.ts";
import type { Batch } from "../../lib/train/data.ts";
import { adamw, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import { aligned, type Block, randomBatch, spied } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const optimizer = adamw({ learningRate: 0.01 });

/** Runs something in the middle of the recording of an action, "0F1", or of an optimizer, "optimizer 1". */
type Fault = (device: Device, layer: Layer, saved: Saved) => void;
let fault: { at: string; run: Fault } | undefined;

function meet(at: string, device: Device, layer: Layer, saved: Saved) {
  if (fault?.at !== at) return;
  const { run } = fault;
  fault = undefined;
  run(device, layer, saved);
}

/** The layer with a place for faults in each of its functions. */
function fragile(layer: Layer): Layer {
  return {
    ...layer,
    forward(y, x, saved) {
      meet(y.device.activity, y.device, layer, saved);
      layer.forward(y, x, saved);
    },
    backwardInput(dx, dy, saved) {
      meet(dy.device.activity, dy.device, layer, saved);
      layer.backwardInput(dx, dy, saved);
    },
    backwardWeight(saved) {
      layer.backwardWeight!(saved);
      const [first] = saved;
      meet(first.device.activity, first.device, layer, first);
    },
  };
}

const fragileOptimizer: OptimizerSpec = {
  ...optimizer,
  create(parameters, ...rest) {
    const made = optimizer.create(parameters, ...rest);
    const { device } = parameters;
    const step = () => {
      meet(`optimizer ${device.rank}`, device, undefined as never, undefined as never);
      made.step();
    };
    const commit = () => {
      made.commit();
      meet(`commit ${device.rank}`, device, undefined as never, undefined as never);
    };
    return { ...made, step, commit };
  },
};

const language = () => llama("tiny", { ...aligned, width: 12, hidden: 10, vocabulary: 19, length: 7 });
const images = () => resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 });
const textBatch = (samples: number, seed: number) =>
  randomBatch({ ...aligned, vocabulary: 19, length: 7 }, samples, seed);
const imageBatch = (samples: number, seed: number): Batch => ({
  samples,
  inputs: Float32Array.from({ length: samples * 8 * 8 * 3 }, (_, i) => Math.sin(i * 1.7 + seed)),
  targets: Uint32Array.from({ length: samples }, (_, i) => (i + seed) % 3),
});

/** What kernels read in mixed precision, by pipeline. */
const copies = new WeakMap<Pipeline, readonly Block[]>();

function build(model: Model, schedule: Schedule, options: Partial<PipelineOptions> = {}, devices = set): Pipeline {
  const parts = partition(model, schedule.placement.length).map(([first, ...others]) => [fragile(first), ...others]);
  const { optimizer, blocks } = spied(options.optimizer ?? fragileOptimizer);
  const made = createPipeline(devices, model, { parts, placement: schedule.placement, seed: 3, ...options, optimizer });
  copies.set(made, blocks);
  return made;
}

/** Everything that a step changes, but for what is inside the optimizers: the steps after it show that. */
async function stateOf(pipeline: Pipeline): Promise<Map<string, Float32Array>> {
  const state = await pipeline.parameters();
  for (const [name, values] of await pipeline.gradients()) state.set(`gradient of ${name}`, values);
  for (const [name, values] of await pipeline.state()) state.set(name, values);
  for (const [index, { copy }] of copies.get(pipeline)!.entries()) {
    if (copy) state.set(`what kernels read of block ${index}`, await toArray(copy));
  }
  return state;
}

/** What so many good steps give. */
async function undisturbed(
  make: () => Pipeline,
  schedule: Schedule,
  batchOf: (seed: number) => Batch,
  steps = 3,
) {
  const pipeline = make();
  const losses: number[] = [];
  for (let seed = 0; seed < steps; seed++) losses.push((await pipeline.step(schedule, batchOf(seed))).loss);
  const state = await stateOf(pipeline);
  pipeline.close();
  return { losses, state };
}

const throws: Fault = () => {
  throw new Error("user code failed");
};
const faults: Readonly<Record<string, Fault>> = {
  "an exception in a layer": throws,
  "an uncaptured validation error": ({ gpu }) => void gpu.device.createBuffer({ size: 16, usage: 0 }),
  "a buffer beyond the device's limit": (device) => release(empty(device, [2 ** 34], "workspace")),
};

for (const [name, microbatches] of [["1f1b-1", 2], ["zb-v", 4]] as const) {
  for (const precision of ["f32", "mixed"] as Precision[]) {
    test(`a failure at any action of ${name} with 2BP in ${precision} has never happened: what follows is as without it, bit for bit`, async (t) => {
      if (precision === "mixed" && !set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
      const base = generate(name, { devices: 2, microbatches });
      const schedule = sizesOf(base).split ? base : twoStage(base);
      // Both kinds of model where that is quick.
      const models = [[language, textBatch], [images, imageBatch]] as const;
      for (const [model, batch] of name === "1f1b-1" ? models : models.slice(precision === "f32" ? 1 : 0).slice(0, 1)) {
        const make = () => build(model(), schedule, { precision });
        const batchOf = (seed: number) => batch(2 * microbatches, seed);
        // Of zb-v's many actions each kind of each stage in either precision, but of other micro-batches.
        const isMet = ({ stage, microbatches: [first] }: Action) =>
          name === "1f1b-1" || (stage + first) % 2 === Number(precision === "f32");
        const places = [...schedule.actions.flat().filter(isMet).map(formatAction), "optimizer 0", "optimizer 1"];
        const expected = await undisturbed(make, schedule, batchOf, places.length + 1);
        const pipeline = make();
        for (const [index, at] of places.entries()) {
          assert.equal((await pipeline.step(schedule, batchOf(index))).loss, expected.losses[index], `before ${at}`);
          const before = await stateOf(pipeline);
          const inUse = set.devices.map(({ ledger }) => ledger.total());
          const [what, run] = at.startsWith("optimizer")
            ? ["an exception in an optimizer", throws] as const
            : Object.entries(faults)[index % 3];
          fault = { at, run };
          await assert.rejects(
            pipeline.step(schedule, batchOf(1000)),
            /^RankError: Rank \d failed at .*(user code failed|Validation error|where this device allows)/,
            `${what} at ${at}`,
          );
          assert.equal(fault, undefined, `${what} at ${at} was met`);
          assert.deepEqual(await stateOf(pipeline), before, `${what} at ${at}: the state is as before`);
          assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), inUse);
        }
        await pipeline.step(schedule, batchOf(places.length));
        assert.deepEqual(await stateOf(pipeline), expected.state, "what follows");
        pipeline.close();
      }
    });
  }
}

/** Makes the gradient of the layer's first parameter infinite behind the kernels' back. */
const poison: Fault = (device, layer, saved) => {
  device.write(saved.gradient(layer.parameters[0]), Float32Array.of(-Infinity));
};

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const firstOf = (pipeline: Pipeline, stage: number) => pipeline.parts[stage][0].parameters[0].name;

test("an infinite gradient behind a finite loss fails an f32 step, parameter and rank named, with and without an update", async () => {
  for (const [model, batch] of [[language, textBatch], [images, imageBatch]] as const) {
    const make = () => build(model(), schedule);
    const expected = await undisturbed(make, schedule, (seed) => batch(4, seed));
    for (const [rank, optimize] of [[0, true], [1, true], [1, false]] as const) {
      const pipeline = make();
      await pipeline.step(schedule, batch(4, 0));
      const before = await stateOf(pipeline);
      fault = { at: `${rank}W1`, run: poison };
      await assert.rejects(pipeline.step(schedule, batch(4, 7), { optimize }), {
        message: `Rank ${rank} failed at ${optimize ? "optimizer" : "gradients"}: the gradient of "${
          firstOf(pipeline, rank)
        }" is not finite`,
      });
      assert.deepEqual(await stateOf(pipeline), before);
      for (const seed of [1, 2]) await pipeline.step(schedule, batch(4, seed));
      assert.deepEqual(await stateOf(pipeline), expected.state);
      pipeline.close();
    }
  }
});

test("a mixed-precision step that is skipped leaves parameters, statistics and moments alone, and says where the overflow is", async (t) => {
  if (!set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const make = (lossScale: number) => build(images(), schedule, { precision: "mixed", lossScale });
  const expected = await undisturbed(() => make(2 ** 8), schedule, (seed) => imageBatch(4, seed));
  const pipeline = make(2 ** 9);
  const before = await stateOf(pipeline);
  fault = { at: "1W0", run: poison };
  const { skipped, overflow } = await pipeline.step(schedule, imageBatch(4, 7));
  assert.deepEqual({ skipped, overflow }, { skipped: true, overflow: { rank: 1, parameter: firstOf(pipeline, 1) } });
  assert.deepEqual(await stateOf(pipeline), before);
  for (const seed of [0, 1, 2]) {
    const { loss, lossScale } = await pipeline.step(schedule, imageBatch(4, seed));
    assert.deepEqual([loss, lossScale], [expected.losses[seed], 2 ** 8]);
  }
  assert.deepEqual(await stateOf(pipeline), expected.state);
  pipeline.close();

  const least = make(1);
  const start = await stateOf(least);
  fault = { at: "0W1", run: poison };
  await assert.rejects(
    least.step(schedule, imageBatch(4, 0)),
    /^RankError: Rank 0 failed at optimizer: the gradient of ".*" is not finite, although the loss is scaled by no more than 1: the training has diverged$/,
  );
  assert.deepEqual(await stateOf(least), start);
  least.close();
});

test("in mixed precision the pipeline's update is by the gradients of the loss itself, whatever it is scaled by", async (t) => {
  if (!set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const rate = 0.5;
  const options = { precision: "mixed", lossScale: 2 ** 9, optimizer: sgd({ learningRate: rate }) } as const;
  const pipeline = build(language(), schedule, options);
  const before = await pipeline.parameters();
  await pipeline.step(schedule, textBatch(4, 0), { optimize: false });
  const gradients = await pipeline.gradients();
  await pipeline.step(schedule, textBatch(4, 0));
  for (const [name, after] of await pipeline.parameters()) {
    for (const [i, value] of after.entries()) {
      const expected = before.get(name)![i] - rate * gradients.get(name)![i];
      assert.ok(Math.abs(value - expected) < 1e-6 * (1 + Math.abs(expected)), `${name}: ${value}, not ${expected}`);
    }
  }
  pipeline.close();
});

test("statistics that were set are what a failed step goes back to, and closing gives their memory back", async () => {
  const free = set.devices.map(({ ledger }) => ledger.total());
  const pipeline = build(images(), schedule);
  const buffers = pipeline.parts.flat().flatMap((layer) => layer.buffers ?? []);
  assert.ok(buffers.length > 0);
  pipeline.setState(new Map(buffers.map(({ name, shape }, n) => [name, new Float32Array(sizeOf(shape)).fill(n + 2)])));
  const before = await stateOf(pipeline);
  fault = { at: "0W1", run: throws };
  await assert.rejects(pipeline.step(schedule, imageBatch(4, 0)), /user code failed/);
  assert.deepEqual(await stateOf(pipeline), before);
  pipeline.close();
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), free);
});

test("a step that is skipped leaves nothing recorded: what is freed after it can be given up at once", async (t) => {
  if (!set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const pipeline = build(language(), schedule, { precision: "mixed", lossScale: 2 ** 9 });
  fault = { at: "1W1", run: poison };
  assert.equal((await pipeline.step(schedule, textBatch(4, 7))).skipped, true);
  for (const device of set.devices) {
    device.pool.trim();
    const reserved = device.ledger.reserved();
    release(empty(device, [12_345], "workspace"));
    assert.ok(device.ledger.reserved() > reserved);
    device.pool.trim();
    assert.equal(device.ledger.reserved(), reserved);
  }
  pipeline.close();
});

test("overflow shrinks the loss scale without an update as well, and gradients that were added up are lost with it", async (t) => {
  if (!set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const pipeline = build(language(), schedule, { precision: "mixed", lossScale: 2 ** 9 });
  const step = (accumulate: boolean) => pipeline.step(schedule, textBatch(4, 1), { optimize: false, accumulate });
  fault = { at: "1W1", run: poison };
  assert.equal((await step(false)).skipped, true);
  assert.ok([...(await pipeline.gradients()).values()].every((values) => values.every((value) => value === 0)));
  assert.equal((await step(false)).lossScale, 2 ** 8);
  fault = { at: "0W1", run: poison };
  assert.equal((await step(true)).skipped, true);
  await assert.rejects(step(true), /^UserError: The gradients of the steps before were lost/);
  assert.equal((await step(false)).lossScale, 2 ** 7);
  pipeline.close();
});

test("a step that fails stops recording what is in use", async () => {
  const pipeline = build(language(), schedule);
  const observed = set.devices.map(() => false);
  const undo = set.devices.map(({ ledger }, rank) => {
    const { observe } = ledger;
    ledger.observe = (observer) => {
      observed[rank] = observer !== undefined;
      observe(observer);
    };
    return () => ledger.observe = observe;
  });
  fault = { at: "1I0", run: throws };
  await assert.rejects(pipeline.step(schedule, textBatch(4, 0), { timeline: true }), /user code failed/);
  assert.deepEqual(observed, [false, false]);
  undo.forEach((each) => each());
  pipeline.close();
});

test("a step without an update leaves its gradients to be read, and no other step adds to them unless it is told to", async () => {
  const pipeline = build(language(), schedule);
  const gradientsOf = async (seed: number, accumulate = false) => {
    await pipeline.step(schedule, textBatch(4, seed), { optimize: false, accumulate });
    return await pipeline.gradients();
  };
  const [a, b] = [await gradientsOf(1), await gradientsOf(2)];
  await gradientsOf(1);
  const both = await gradientsOf(2, true);
  for (const [name, values] of both) {
    for (const [i, value] of values.entries()) {
      const sum = a.get(name)![i] + b.get(name)![i];
      assert.ok(Math.abs(value - sum) < 1e-5 * Math.abs(sum) + 1e-7, `${name}: ${value}, not ${sum}`);
    }
  }
  pipeline.close();
  const [alone, watched] = [build(language(), schedule), build(language(), schedule)];
  await alone.step(schedule, textBatch(4, 3));
  await watched.step(schedule, textBatch(4, 1), { optimize: false });
  await watched.step(schedule, textBatch(4, 3));
  const expected = await stateOf(alone);
  alone.close();
  assert.deepEqual(await stateOf(watched), expected);
  watched.close();
});

test("gradients that were added up are lost with a step that fails, and are never mixed with others", async () => {
  const lost = { name: "UserError", message: /^The gradients of the steps before were lost when a step failed/ };
  const pipeline = build(language(), schedule);
  const sum = async (accumulate: boolean) => {
    await pipeline.step(schedule, textBatch(4, 1), { optimize: false, accumulate });
    await pipeline.step(schedule, textBatch(4, 2), { optimize: false, accumulate: true });
    return await pipeline.gradients();
  };
  const expected = await sum(false);
  fault = { at: "1I1", run: throws };
  await assert.rejects(pipeline.step(schedule, textBatch(4, 3), { accumulate: true }), /user code failed/);
  await assert.rejects(pipeline.gradients(), lost);
  await assert.rejects(pipeline.step(schedule, textBatch(4, 3), { accumulate: true }), lost);
  pipeline.clearGradients();
  assert.ok([...(await pipeline.gradients()).values()].every((values) => values.every((value) => value === 0)));
  assert.deepEqual(await sum(true), expected);
  pipeline.close();
});

test("steps that fail leave no buffer behind, wherever they do", async () => {
  const own = await openDevices(2);
  const pipeline = build(language(), schedule, {}, own);
  const living = new Set<GPUBuffer>();
  for (const { gpu: { device } } of own.devices) {
    const create = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const buffer = create(descriptor), destroy = buffer.destroy.bind(buffer);
      living.add(buffer);
      buffer.destroy = () => {
        living.delete(buffer);
        destroy();
      };
      return buffer;
    };
  }
  const step = () => pipeline.step(schedule, textBatch(4, 0));
  await step();
  for (const at of [...schedule.actions.flat().map(formatAction), "optimizer 0", "optimizer 1"]) {
    const left: number[] = [];
    for (let time = 0; time < 3; time++) {
      fault = { at, run: throws };
      await assert.rejects(step(), /user code failed/);
      left.push(living.size);
    }
    assert.equal(left[2], left[1], at);
  }
  pipeline.close();
  own.close();
});

test("errors that come behind the one that is told belong to the same failure: the next step is as without it", async () => {
  const expected = await undisturbed(() => build(language(), schedule), schedule, (seed) => textBatch(4, seed));
  const pipeline = build(language(), schedule);
  assert.equal((await pipeline.step(schedule, textBatch(4, 0))).loss, expected.losses[0]);
  for (const at of ["0F1", "1W1", "optimizer 0", "optimizer 1"]) {
    fault = {
      at,
      run(...place) {
        faults["an uncaptured validation error"](...place);
        throws(...place);
      },
    };
    await assert.rejects(pipeline.step(schedule, textBatch(4, 7)), /^RankError: Rank \d failed at .*user code failed/);
  }
  for (const seed of [1, 2]) await pipeline.step(schedule, textBatch(4, seed));
  assert.deepEqual(await stateOf(pipeline), expected.state);
  pipeline.close();
});

test("an error is told by the step that made it, however soon that follows one that failed with messages on their way", async () => {
  const pipeline = build(language(), schedule);
  const slowly: Fault = (...place) => {
    faults["an uncaptured validation error"](...place);
    for (const start = performance.now(); performance.now() - start < 60;); // longer than what is given up may wait
  };
  for (let round = 0; round < 5; round++) {
    fault = { at: "0F1", run: throws }; // the result of 0F0 is on its way
    await assert.rejects(pipeline.step(schedule, textBatch(4, 7)), /user code failed/);
    fault = { at: "0F0", run: slowly };
    await assert.rejects(pipeline.step(schedule, textBatch(4, 7)), /^RankError: Rank \d failed at .*Validation error/);
  }
  pipeline.close();
});

test("an error that is reported when a step stands already fails the next one before it starts", async () => {
  const expected = await undisturbed(() => build(language(), schedule), schedule, (seed) => textBatch(4, seed));
  const other = build(language(), schedule);
  fault = { at: "commit 1", run: faults["an uncaptured validation error"] };
  assert.equal((await other.step(schedule, textBatch(4, 0))).loss, expected.losses[0]);
  await assert.rejects(
    other.step(schedule, textBatch(4, 7)),
    /^RankError: Before the step: Rank 1 .*: Validation error: Buffer usages must not be 0/,
  );
  for (const seed of [1, 2]) await other.step(schedule, textBatch(4, seed));
  assert.deepEqual(await stateOf(other), expected.state);
  other.close();
});

test("after the loss of a device every call names the rank and why, and closing works", async () => {
  const own = await openDevices(2);
  try {
    const model = language();
    const parts = partition(model, 2).map(([first, ...others]) => [fragile(first), ...others]);
    const pipeline = createPipeline(own, model, { optimizer, parts });
    await pipeline.step(schedule, textBatch(4, 0));
    fault = { at: "1I0", run: ({ gpu }) => gpu.device.destroy() };
    const reason = /Rank 1 failed at .*: Rank 1 \(.*\): device lost \(destroyed\)/;
    await assert.rejects(pipeline.step(schedule, textBatch(4, 1)), reason);
    for (
      const call of [
        () => pipeline.step(schedule, textBatch(4, 1)),
        () => pipeline.parameters(),
        () => pipeline.gradients(),
        () => pipeline.state(),
        () => Promise.resolve().then(() => pipeline.setParameters(new Map())),
        () => Promise.resolve().then(() => pipeline.clearGradients()),
      ]
    ) {
      await assert.rejects(
        call,
        (error: Error) => /^The pipeline cannot go on: /.test(error.message) && reason.test(error.message),
      );
    }
    pipeline.close();
    pipeline.close();
  } finally {
    own.close();
  }
});

test("what fails when it is too late for the step to be undone is what the pipeline says from then on", async () => {
  const failures: readonly [RegExp, () => () => void][] = [
    [/Rank 1 failed while it updated its parameters: no room for it/, () => {
      const [, device] = set.devices;
      const { commit } = device;
      device.commit = async (...args) => await commit.apply(device, args) ?? "no room for it";
      return () => void (device.commit = commit);
    }],
    [/Rank 0 failed while it counted its update: user code failed/, () => {
      fault = { at: "commit 0", run: throws };
      return () => {};
    }],
  ];
  for (const [reason, begin] of failures) {
    const pipeline = build(language(), schedule);
    const values = await pipeline.parameters();
    const end = begin();
    const calls = [
      () => pipeline.step(schedule, textBatch(4, 1), { timeline: true }),
      () => pipeline.step(schedule, textBatch(4, 1)),
      () => pipeline.parameters(),
      () => pipeline.gradients(),
      () => pipeline.setParameters(values),
      () => pipeline.clearGradients(),
    ];
    for (const call of calls) {
      await assert.rejects(
        Promise.resolve().then(call),
        (error: Error) => /^The pipeline cannot go on: /.test(error.message) && reason.test(error.message),
      );
    }
    end();
    pipeline.close();
  }
  // The devices are as good as before.
  const expected = await undisturbed(() => build(language(), schedule), schedule, (seed) => textBatch(4, seed), 1);
  assert.equal(expected.losses.length, 1);
});

test("after the loss of a device between two steps every call names the rank and why, those that read nothing as well", async () => {
  const own = await openDevices(2);
  try {
    const pipeline = createPipeline(own, language(), { optimizer });
    await pipeline.step(schedule, textBatch(4, 0));
    const values = await pipeline.parameters();
    own.devices[1].gpu.device.destroy();
    await own.devices[1].gpu.settleLoss();
    for (
      const call of [
        () => pipeline.clearGradients(),
        () => pipeline.setParameters(values),
        () => pipeline.parameters(),
        () => pipeline.gradients(),
        () => pipeline.state(),
        () => pipeline.step(schedule, textBatch(4, 1)),
      ]
    ) {
      await assert.rejects(
        Promise.resolve().then(call),
        /^Error: The pipeline cannot go on: Rank 1 \(.*\): device lost \(destroyed\)/,
      );
    }
    pipeline.close();
  } finally {
    own.close();
  }
});
