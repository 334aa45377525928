/** Copies of a pipeline that share each batch: what they make of it is what one pipeline makes of the whole. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { linear } from "../../lib/layers/linear.ts";
import { bert } from "../../lib/models/bert.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { mamba } from "../../lib/models/mamba.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { toArray } from "../../lib/tensor.ts";
import { type Batch, microbatchOf } from "../../lib/train/data.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { train, type TrainOptions } from "../../lib/training/train.ts";
import { assertSameGradients, deep, type Gradients, randomBatch, spied, tinyModel } from "./support.ts";

let one: DeviceSet, two: DeviceSet, real: DeviceSet, virtual: DeviceSet;
before(async () => {
  one = await openDevices(1);
  two = await openDevices(2);
  real = await openDevices(4, { virtual: false });
  virtual = await openDevices(4, { virtual: true });
});
after(() => [one, two, real, virtual].forEach((set) => set.close()));

/** The tiny model with its head tied to the embedding: on two ranks they are apart. */
function tiedModel(): Model {
  const model = tinyModel(deep);
  const head = linear("tied_head", deep.width, deep.vocabulary, { transposed: true });
  const blocks = model.layers.slice(0, -1);
  return { ...model, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}

const words = { vocabulary: 32, width: 16, blocks: 2, heads: 2, hidden: 16, length: 16, types: 2, positions: 16 };
const dropping = () => bert("b", { ...words, mask: 3, dropout: 0.3 });
const images = () => resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 });
const text = (samples: number, seed: number): Batch => ({ ...randomBatch(deep, samples, seed), seed: 77 + seed });
const pictures = (samples: number, seed: number) => syntheticImages({ size: 8, classes: 3, seed }).next(samples);

const split = (name: string, policy: Parameters<typeof twoStage>[1], microbatches = 4) =>
  twoStage(generate(name, { devices: 2, microbatches }), policy);

type Case = readonly [make: () => Model, batchOf: typeof text, schedules: readonly Schedule[]];
const cases: Readonly<Record<string, Case>> = {
  "a LLaMa": [() => tinyModel(deep), text, [
    generate("1f1b-1", { devices: 2, microbatches: 4 }),
    split("1f1b-2", { policy: "fill", width: 2 }),
    generate("zb-v", { devices: 2, microbatches: 4 }),
    split("interleaved-1f1b", { policy: "lean" }),
    split("gpipe", { policy: "end" }),
  ]],
  "a LLaMa with tied weights": [tiedModel, text, [split("1f1b-1", { policy: "fill" })]],
  "a BERT with dropout": [dropping, text, [
    split("1f1b-1", { policy: "every:2" }),
    split("naive", { policy: "end" }, 1),
  ]],
  "a Mamba": [
    () => mamba("m", { vocabulary: 32, width: 16, blocks: 2, length: 16, state: 4, expand: 2, rank: 2 }),
    text,
    [
      split("1f1b-1", { policy: "mid" }),
    ],
  ],
  "a ResNet with running statistics": [images, pictures, [split("1f1b-2", { policy: "fill" })]],
};

const optimizer = sgd({ learningRate: 0.1, momentum: 0.9 });

/** On one device and one replica the same micro-batches one after the other: gradients of the first step, and what two make. */
async function alone(make: () => Model, batchOf: typeof text, microbatches: number) {
  const pipeline = createPipeline(one, make(), { optimizer, seed: 2 });
  const schedule = generate("gpipe", { devices: 1, microbatches });
  const samples = 2 * microbatches;
  const { loss } = await pipeline.step(schedule, batchOf(samples, 0), { optimize: false });
  const gradients = await pipeline.gradients();
  const losses = [loss], norms: number[] = [];
  for (const seed of [1, 2]) {
    const result = await pipeline.step(schedule, batchOf(samples, seed), { clip: 0.5 });
    losses.push(result.loss);
    norms.push(result.gradientNorm!);
  }
  const parameters = await pipeline.parameters();
  pipeline.close();
  return { losses, norms, gradients, parameters };
}

const near = (actual: readonly number[], expected: readonly number[]) =>
  actual.forEach((value, at) =>
    assert.ok(Math.abs(value - expected[at]) <= 1e-5 * expected[at], `${actual}, not ${expected}`)
  );

for (const [name, [make, batchOf, schedules]] of Object.entries(cases)) {
  test(`${name} on two ranks in two replicas has the gradients, norms and updates of one pass over the whole batch`, async () => {
    const known = new Map<number, Awaited<ReturnType<typeof alone>>>();
    for (const [at, schedule] of schedules.entries()) {
      const microbatches = 2 * Math.max(...schedule.actions[0].flatMap((action) => action.microbatches)) + 2;
      const expected = known.get(microbatches) ?? await alone(make, batchOf, microbatches);
      known.set(microbatches, expected);
      const set = at % 2 ? virtual : real, samples = 2 * microbatches;
      const inUse = set.devices.map(({ ledger }) => ledger.total());
      const { optimizer: seen, blocks } = spied(optimizer);
      const options = { optimizer: seen, placement: schedule.placement, replicas: 2, seed: 2 };
      const pipeline = createPipeline(set, make(), options);
      const held = set.devices.map(({ ledger }) => ledger.total());
      const losses = [(await pipeline.step(schedule, batchOf(samples, 0), { optimize: false })).loss];
      const what = `${schedule.name}, ${schedule.policy ?? "without 2BP"}`;
      assertSameGradients(await pipeline.gradients(), expected.gradients, 1e-5, what);
      const norms: number[] = [];
      for (const seed of [1, 2]) {
        const { loss, gradientNorm, sums, peaks } = await pipeline.step(schedule, batchOf(samples, seed), {
          clip: 0.5,
        });
        losses.push(loss);
        norms.push(gradientNorm!);
        assert.equal(peaks.length, 4);
        for (const [peer, times] of sums!.entries()) {
          const stages = [...schedule.placement.keys()].filter((stage) => schedule.placement[stage] === peer % 2);
          assert.deepEqual(times.map(({ stage }) => stage).sort(), stages);
          assert.ok(times.every(({ begin, end }) => 0 < begin && begin < end));
        }
      }
      near(losses, expected.losses);
      near(norms, expected.norms);
      const parameters = await pipeline.parameters();
      assert.deepEqual([...parameters.keys()], [...expected.parameters.keys()]);
      for (const [name, values] of expected.parameters) {
        values.forEach((value, i) => assert.ok(Math.abs(parameters.get(name)![i] - value) < 1e-5, `${what}: ${name}`));
      }
      const masters = await Promise.all(blocks.map(({ masters }) => toArray(masters)));
      const half = masters.length / 2;
      assert.deepEqual(masters.slice(half), masters.slice(0, half), "all replicas have the same bits");
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), held);
      pipeline.close();
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), inUse);
    }
  });
}

test("four replicas of one rank make the same update too", async () => {
  const expected = await alone(() => tinyModel(deep), text, 4);
  const pipeline = createPipeline(real, tinyModel(deep), { optimizer, replicas: 4, seed: 2 });
  const schedule = generate("naive", { devices: 1 });
  await pipeline.step(schedule, text(8, 0), { optimize: false });
  for (const seed of [1, 2]) await pipeline.step(schedule, text(8, seed), { clip: 0.5 });
  for (const [name, values] of await pipeline.parameters()) {
    values.forEach((value, i) => assert.ok(Math.abs(expected.parameters.get(name)![i] - value) < 1e-5, name));
  }
  pipeline.close();
});

test("running statistics become the mean over replicas, in a step without an update as well", async () => {
  const schedule = split("1f1b-1", { policy: "fill" }, 2);
  const both = createPipeline(real, images(), { optimizer, replicas: 2 });
  const halves = [0, 1].map(() => createPipeline(two, images(), { optimizer }));
  for (const optimize of [true, false]) {
    const batch = pictures(8, 5);
    await both.step(schedule, batch, { optimize });
    for (const [replica, pipeline] of halves.entries()) {
      await pipeline.step(schedule, microbatchOf(batch, replica, 2), { optimize: false });
    }
    const [found, one, other] = [await both.state(), await halves[0].state(), await halves[1].state()];
    assert.ok(found.size > 0);
    for (const [name, values] of found) {
      values.forEach((value, i) => {
        const mean = (one.get(name)![i] + other.get(name)![i]) / 2;
        assert.ok(Math.abs(value - mean) < 1e-5 * (1 + Math.abs(mean)), `${name}: ${value}, not ${mean}`);
      });
    }
    const [parameters, state] = [await both.parameters(), await both.state()];
    for (const pipeline of halves) { // on from where both are
      pipeline.setParameters(parameters);
      pipeline.setState(state);
    }
  }
  [both, ...halves].forEach((pipeline) => pipeline.close());
});

test("an evaluation has the loss and the outputs of the whole batch, a generation its tokens, and neither changes anything", async () => {
  const schedule = split("1f1b-1", { policy: "fill" }, 2);
  const results = [];
  for (const [set, replicas] of [[two, 1], [real, 2], [virtual, 2]] as const) {
    const pipeline = createPipeline(set, tinyModel(deep), { optimizer, replicas, seed: 9 });
    await pipeline.step(schedule, text(8, 1));
    const before = await pipeline.parameters();
    const { loss, targets, outputs, outputShape } = await pipeline.evaluate(schedule, text(8, 2), { outputs: true });
    const { tokens } = await pipeline.generate([1, 2, 3], { tokens: 5 });
    assert.deepEqual(await pipeline.parameters(), before);
    results.push({ loss, targets, outputs: outputs!, outputShape, tokens });
    pipeline.close();
  }
  const [expected, ...others] = results;
  for (const { loss, outputs, ...rest } of others) {
    assert.deepEqual(rest, { targets: expected.targets, outputShape: expected.outputShape, tokens: expected.tokens });
    near([loss], [expected.loss]);
    assert.equal(outputs.length, expected.outputs.length);
    outputs.forEach((value, i) => assert.ok(Math.abs(value - expected.outputs[i]) < 1e-5));
  }
});

test("steps that add up their shares sum over replicas in the last of them, to the update of all", async () => {
  const schedule = split("1f1b-1", { policy: "fill" }, 2);
  const trained: { gradientNorm: number; parameters: Gradients }[] = [];
  for (const [set, replicas] of [[two, 1], [real, 2]] as const) {
    const pipeline = createPipeline(set, tinyModel(deep), { optimizer, replicas, seed: 9 });
    await pipeline.step(schedule, text(8, 1), { optimize: false, share: 0.5 });
    const { gradientNorm } = await pipeline.step(schedule, text(8, 2), { accumulate: true, share: 0.5 });
    trained.push({ gradientNorm: gradientNorm!, parameters: await pipeline.parameters() });
    pipeline.close();
  }
  near([trained[1].gradientNorm], [trained[0].gradientNorm]);
  for (const [name, values] of trained[1].parameters) {
    values.forEach((value, i) => assert.ok(Math.abs(value - trained[0].parameters.get(name)![i]) < 1e-5));
  }
});

test("gradients that overflow on one replica skip the step on all, and its loss scale is halved once", async (t) => {
  if (!real.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const schedule = split("1f1b-1", { policy: "fill" }, 2);
  const options = { optimizer: adamw(), replicas: 2, seed: 9, precision: "mixed", lossScale: 2 ** 40 } as const;
  const pipeline = createPipeline(real, images(), options);
  const before = { parameters: await pipeline.parameters(), state: await pipeline.state() };
  const { skipped, overflow, lossScale, gradientNorm } = await pipeline.step(schedule, pictures(8, 1));
  assert.deepEqual({ skipped, lossScale, gradientNorm }, {
    skipped: true,
    lossScale: 2 ** 40,
    gradientNorm: undefined,
  });
  assert.equal(overflow!.replica, 0);
  assert.deepEqual({ parameters: await pipeline.parameters(), state: await pipeline.state() }, before);
  assert.equal((await pipeline.optimizerState()).lossScale!.value, 2 ** 39);
  pipeline.close();
});

test("what is set is set on all replicas, and what the optimizer keeps goes from two replicas to one and back", async () => {
  const [schedule, longer] = [2, 4].map((microbatches) => split("1f1b-1", { policy: "fill" }, microbatches)),
    adam = adamw({ learningRate: 0.01 });
  const { optimizer: seen, blocks } = spied(adam);
  const both = createPipeline(real, images(), { optimizer: seen, replicas: 2, seed: 9 });
  const single = createPipeline(two, images(), { optimizer: adam, seed: 1 });
  await both.step(schedule, pictures(8, 1));
  const copy = async (from: typeof both, to: typeof both) => {
    to.setParameters(await from.parameters());
    to.setState(await from.state());
    to.setOptimizerState(await from.optimizerState());
  };
  await copy(both, single);
  await single.step(longer, pictures(8, 2));
  await copy(single, both);
  await both.step(schedule, pictures(8, 3));
  await single.step(longer, pictures(8, 3));
  assert.equal((await both.optimizerState()).updates, 3);
  for (const [name, values] of await both.parameters()) {
    const expected = (await single.parameters()).get(name)!;
    // A step of Adam is as long as its rate, whatever is rounded away of a gradient that is nearly 0.
    const off = values.reduce((sum, value, i) => sum + Math.abs(value - expected[i]), 0) / values.length;
    assert.ok(off < 2e-3, `${name}: ${off}`);
  }
  const masters = await Promise.all(blocks.map(({ masters }) => toArray(masters)));
  assert.deepEqual(masters.slice(masters.length / 2), masters.slice(0, masters.length / 2));
  both.close();
  single.close();
});

test("a stage that trains nothing has no sum, and an error of a device names rank and replica", async () => {
  const schedule = split("1f1b-1", { policy: "fill" }, 2);
  const model = frozenModel(tinyModel(deep), (name) => /embedding|blocks.0/.test(name));
  const parts = [model.layers.slice(0, 3), model.layers.slice(3)];
  for (const shardOptimizer of [false, true]) {
    const pipeline = createPipeline(real, model, { optimizer, replicas: 2, parts, shardOptimizer });
    assert.deepEqual(pipeline.end.sums, [1]);
    const { sums } = await pipeline.step(schedule, text(8, 1));
    assert.deepEqual(sums!.map((times) => times.map(({ stage }) => stage)), [[], [1], [], [1]]);
    pipeline.close();
  }
  const small = createPipeline(real, tinyModel(deep), { optimizer, replicas: 2, budget: 200_000 });
  await assert.rejects(
    small.step(schedule, text(64, 1)),
    /^RankError: Rank [01] of replica [01] failed at \d[FIW]\d: Rank [01] of replica [01] \(.*exceed the budget/,
  );
  small.close();
});

test("replicas that do not fit devices, batch or schedule are refused in one line, before anything runs", async () => {
  const refused = (text: string) => (error: Error) => error.name === "UserError" && error.message === text;
  assert.throws(
    () => createPipeline(real, tinyModel(deep), { optimizer, replicas: 3 }),
    refused("createPipeline: 4 devices cannot be 3 replicas of as many each; `replicas` must divide them"),
  );
  assert.throws(
    () => createPipeline(real, tinyModel(deep), { optimizer, replicas: 0 }),
    refused("createPipeline: replicas must be a whole number, 1 or more, not 0"),
  );
  const pipeline = createPipeline(real, tinyModel(deep), { optimizer, replicas: 2 });
  const schedule = split("1f1b-1", { policy: "fill" }, 4);
  await assert.rejects(
    pipeline.step(schedule, text(12, 1)),
    refused("A batch of 12 samples cannot be cut into 8 equal micro-batches, 4 for each of 2 replicas"),
  );
  await assert.rejects(
    pipeline.step(generate("1f1b-1", { devices: 4 }), text(8, 1)),
    refused(
      "Schedule 1f1b-1 is for 4 stages on 4 ranks, the pipeline has 2 on 2 in each of 2 replicas: a schedule is of the ranks of one",
    ),
  );
  pipeline.close();
});

test("train() gives each replica its share of every batch, and its checkpoints go on with another number of replicas", async () => {
  const folder = mkdtempSync(join(tmpdir(), "twobp-replicas-"));
  const schedule = split("1f1b-1", { policy: "fill" }, 2);
  const run = async (set: DeviceSet, options: Partial<PipelineOptions>, training: Partial<TrainOptions>) => {
    const pipeline = createPipeline(set, tinyModel(deep), { optimizer, seed: 9, ...options });
    const losses: number[] = [];
    await train(pipeline, {
      schedule,
      data: (epoch) => [0, 1].map((at) => text(8, 2 * epoch + at)),
      accumulate: 2,
      evaluation: { every: 2, batches: [text(8, 99)] },
      ...training,
      onStep: ({ loss }) => losses.push(loss),
      onEvaluation: ({ loss }) => losses.push(loss),
    });
    pipeline.close();
    return losses;
  };
  const save = { folder, every: 1 };
  const expected = await run(two, {}, { epochs: 4 });
  const first = await run(real, { replicas: 2, shardOptimizer: true }, { epochs: 2, save });
  const second = await run(two, {}, { epochs: 3, save, resume: true });
  const third = await run(virtual, { replicas: 2 }, { epochs: 4, save, resume: true });
  rmSync(folder, { recursive: true });
  // The training that ends after three updates evaluates then too.
  near([...first, second[0], ...third], expected);
});

test("what a step of replicas needs is no more than was predicted, and what its sums hold is just that", async () => {
  const schedule = split("interleaved-1f1b", { policy: "end" }), { software, subgroupSize } = real.devices[0].gpu.info;
  const options = { optimizer, replicas: 2 };
  const predicted = await predictMemory(tinyModel(deep), schedule, 2, { ...options, software, subgroupSize });
  const pipeline = createPipeline(real, tinyModel(deep), { ...options, placement: schedule.placement });
  const { peaks } = await pipeline.step(schedule, text(16, 1));
  for (const [peer, { needed, categories }] of peaks.entries()) {
    const { needed: expected, categories: { workspace } } = predicted[peer];
    assert.equal(categories.workspace, workspace);
    assert.ok(needed <= expected, `${needed}, predicted ${expected}`); // messages are on their way for as long as they may
    assert.ok(needed > 0.95 * expected, `${needed}, predicted ${expected}`);
  }
  pipeline.close();
});
