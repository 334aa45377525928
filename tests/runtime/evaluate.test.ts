import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { fill } from "../../lib/ops/elementwise.ts";
import { parameter } from "../../lib/layers/parameter.ts";
import { unsplit } from "../../lib/layers/unsplit.ts";
import { matmul } from "../../lib/ops/matmul.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { bert, type BertConfiguration } from "../../lib/models/bert.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline, type Pipeline, type Precision } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { forwardOnly } from "../../lib/schedules/transforms/forward_only.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { generator } from "../../lib/random.ts";
import type { Batch } from "../../lib/train/data.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { bertLoss } from "../reference/bert.ts";
import { llamaLoss } from "../reference/llama.ts";
import { crossEntropy } from "../reference/loss.ts";
import { aligned, randomBatch, tiny, tinyModel } from "./support.ts";

let two: DeviceSet, virtual: DeviceSet;
before(async () => {
  two = await openDevices(2);
  virtual = await openDevices(2, { virtual: true });
});
after(() => [two, virtual].forEach((set) => set.close()));

/** With tied parameters, side inputs and dropout. */
const words: BertConfiguration = {
  ...{ vocabulary: 19, mask: 18, width: 12, blocks: 2, heads: 2, hidden: 10, positions: 9, types: 2, length: 7 },
  dropout: 0.4,
};
const bertBatch = (samples: number, seed: number): Batch => {
  const random = generator(seed);
  const lengths = Uint32Array.from({ length: samples }, () => 3 + random.integer(5));
  return { ...randomBatch({ ...aligned, vocabulary: 19, length: 7 }, samples, seed), lengths, seed };
};
const image = { block: "basic", blocks: [1, 1], width: 8, stem: "3x3", size: 8, classes: 3 } as const;
const cases: { model: () => Model; batch: (samples: number, seed: number) => Batch }[] = [
  { model: () => tinyModel(aligned), batch: (samples, seed) => randomBatch(aligned, samples, seed) },
  { model: () => bert("bert", words), batch: bertBatch },
  {
    model: () => resnet("resnet", image),
    batch: (samples, seed) => syntheticImages({ size: 8, classes: 3, seed }).next(samples),
  },
];
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));

async function everything(pipeline: Pipeline) {
  return {
    parameters: await pipeline.parameters(),
    state: await pipeline.state(),
    gradients: await pipeline.gradients(),
  };
}

for (const { model, batch } of cases) {
  for (const precision of ["f32", "mixed"] satisfies Precision[]) {
    for (const mode of ["real", "virtual"] as const) {
      test(`an evaluation of ${model().name} (${precision}, ${mode}) changes nothing, bit for bit, between steps and in a sum`, async (t) => {
        const set = mode === "real" ? two : virtual;
        if (precision === "mixed" && !set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
        const optimizer = adamw({ learningRate: 0.01 });
        const make = () => createPipeline(set, model(), { optimizer, seed: 4, precision });
        const run = async (pipeline: Pipeline, between: () => Promise<unknown>) => {
          await between();
          await pipeline.step(schedule, batch(4, 1));
          await between();
          await pipeline.step(schedule, batch(4, 2), { optimize: false });
          await between();
          const added = await pipeline.gradients();
          await pipeline.step(schedule, batch(4, 3), { accumulate: true });
          await between();
          await pipeline.step(schedule, batch(4, 4), { optimize: false });
          return { added, ...await everything(pipeline) };
        };
        const evaluated = make();
        const losses: number[] = [];
        const actual = await run(evaluated, async () => {
          const { loss } = await evaluated.evaluate(schedule, batch(8, 9));
          assert.equal((await evaluated.evaluate(schedule, batch(8, 9))).loss, loss, "the same bits again");
          losses.push(loss);
        });
        evaluated.close();
        const plain = make();
        const expected = await run(plain, () => Promise.resolve());
        plain.close();
        assert.deepEqual(actual, expected);
        assert.notEqual(losses[1], losses[0], "it sees an update");
        assert.notEqual(losses[3], losses[2]);
        assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0]);
      });
    }
  }
}

test("its loss is that of the model in float64", async () => {
  const pipeline = createPipeline(two, tinyModel(), { optimizer: sgd({ learningRate: 0.1 }), seed: 5 });
  const batch = randomBatch(tiny, 4);
  const expected = llamaLoss(tiny, await pipeline.parameters(), batch);
  const { loss, targets } = await pipeline.evaluate(schedule, batch);
  assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);
  assert.equal(targets, batch.targets.length);
  pipeline.close();
});

test("dropout is off: the loss is that of the model in float64 that has none, whatever the batch's seed", async () => {
  const pipeline = createPipeline(two, bert("bert", words), { optimizer: sgd({ learningRate: 0.1 }), seed: 5 });
  const batch = bertBatch(4, 3);
  const expected = bertLoss({ ...words, dropout: 0 }, await pipeline.parameters(), batch);
  for (const seed of [3, 4]) {
    const { loss } = await pipeline.evaluate(schedule, { ...batch, seed });
    assert.ok(Math.abs(loss - expected) < 1e-5 * expected, `loss ${loss} instead of ${expected}`);
  }
  pipeline.close();
});

test("batch normalisation takes its running statistics: however the batch is cut, each image has the same outputs", async () => {
  const pipeline = createPipeline(two, resnet("resnet", image), { optimizer: sgd({ learningRate: 0.1 }), seed: 5 });
  const batch = syntheticImages({ size: 8, classes: 3, seed: 2 }).next(8);
  for (let step = 0; step < 3; step++) await pipeline.step(schedule, batch);
  const inCut = async (microbatches: number) => {
    const cut = generate("gpipe", { devices: 2, microbatches });
    return (await pipeline.evaluate(cut, batch, { outputs: true })).outputs!;
  };
  const whole = await inCut(1);
  for (const microbatches of [2, 8]) {
    (await inCut(microbatches)).forEach((value, i) => assert.ok(Math.abs(value - whole[i]) < 1e-5, `output ${i}`));
  }
  const trained = await pipeline.state();
  await pipeline.setState(new Map([...trained].map(([name, values]) => [name, values.map((value) => 4 * value + 1)])));
  const moved = await inCut(1);
  assert.ok(moved.some((value, i) => Math.abs(value - whole[i]) > 1e-3), "other statistics give other outputs");
  pipeline.close();
});

test("the outputs are the logits that the loss is made of, in the order of the samples", async () => {
  for (const precision of ["f32", "mixed"] satisfies Precision[]) {
    if (precision === "mixed" && !two.devices[0].gpu.info.f16) continue;
    const model = tinyModel(aligned), batch = randomBatch(aligned, 4);
    const pipeline = createPipeline(two, model, { optimizer: adamw(), seed: 5, precision });
    const { loss, outputs, outputShape } = await pipeline.evaluate(schedule, batch, { outputs: true });
    assert.deepEqual(outputShape, [4 * aligned.length, aligned.vocabulary]);
    assert.equal(outputs!.length, outputShape[0] * outputShape[1]);
    const { losses } = crossEntropy(outputs!, batch.targets, aligned.vocabulary);
    const expected = losses.reduce((a, b) => a + b) / losses.length;
    assert.ok(Math.abs(loss - expected) < 1e-5 * expected, `loss ${loss}, of the logits ${expected}`);
    if (precision === "mixed") assert.deepEqual(fromHalf(toHalf(outputs!)), outputs, "what f16 holds");
    assert.equal((await pipeline.evaluate(schedule, batch)).outputs, undefined);
    pipeline.close();
  }
});

test("it runs the forward passes of schedules with several stages a rank, and of those that have no others", async () => {
  const batch = randomBatch(aligned, 4);
  const losses: number[] = [];
  for (const name of ["interleaved-1f1b", "zb-v", "dualpipe-v"]) {
    const base = generate(name, { devices: 2, microbatches: 4 });
    const { placement } = base;
    const pipeline = createPipeline(two, tinyModel(aligned), { optimizer: adamw(), seed: 5, placement });
    losses.push((await pipeline.evaluate(base, batch)).loss, (await pipeline.evaluate(forwardOnly(base), batch)).loss);
    await assert.rejects(
      pipeline.step(forwardOnly(base), batch),
      /^UserError: Schedule .* forward runs forward passes alone: a step trains, and evaluate\(\) runs these$/,
    );
    pipeline.close();
  }
  assert.equal(new Set(losses).size, 1, "the same micro-batches go through the same layers");
});

test("what is recomputed in training, who makes sums and what is frozen make no difference", async () => {
  const batch = randomBatch(aligned, 4), losses: number[] = [];
  for (const options of [{}, { recompute: "both" }, { recompute: "activations", sums: "w" }] as const) {
    for (const model of [tinyModel(aligned), frozenModel(tinyModel(aligned), (name) => /blocks/.test(name))]) {
      const pipeline = createPipeline(two, model, { optimizer: adamw(), seed: 5, ...options });
      losses.push((await pipeline.evaluate(schedule, batch)).loss);
      pipeline.close();
    }
  }
  assert.equal(new Set(losses).size, 1, String(losses));
});

test("a layer whose backward is given whole is evaluated like others", async () => {
  const weight = parameter("own.weight", [aligned.width, aligned.width], { normal: 0.1 });
  const own = unsplit({
    parameters: [weight],
    outputShape: (shape) => shape,
    flops: ([rows]) => ({ f: 2 * rows * aligned.width ** 2, b: 4 * rows * aligned.width ** 2 }),
    forward(y, x, saved) {
      saved.keep("x", x);
      matmul(y, saved.get("x"), saved.value(weight));
    },
    backward(dx, dy, saved) {
      if (dx) matmul(dx, dy, saved.value(weight), { transposeB: true });
      matmul(saved.gradient(weight), saved.get("x"), dy, { transposeA: true, accumulate: true });
    },
  });
  const plain = tinyModel(aligned), layers = [...plain.layers.slice(0, -1), own, ...plain.layers.slice(-1)];
  const pipeline = createPipeline(two, { ...plain, layers }, { optimizer: adamw(), seed: 5 });
  const batch = randomBatch(aligned, 4);
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  assert.equal(
    (await pipeline.evaluate(schedule, batch)).loss,
    loss,
    "without dropout and batch normalisation they are one",
  );
  pipeline.close();
});

test("it holds a forward's memory at most, less than a step, as dry devices predict to the byte", async () => {
  for (const { model, batch } of cases) {
    const options = { optimizer: adamw() };
    const pipeline = createPipeline(two, model(), options);
    const { gpu: { info } } = two.devices[0];
    const alone = forwardOnly(generate("gpipe", { devices: 2, microbatches: 4 }));
    await pipeline.evaluate(alone, batch(8, 1)); // in the first, kernels are still being chosen
    const { peaks } = await pipeline.evaluate(alone, batch(8, 1));
    const predicted = await predictMemory(model(), alone, 2, {
      ...options,
      software: info.software,
      subgroupSize: info.subgroupSize,
    });
    for (const [rank, { total, categories }] of peaks.entries()) {
      const { transfer: _, ...own } = categories, { transfer: __, ...theirs } = predicted[rank].categories;
      assert.deepEqual(own, theirs, `rank ${rank}`);
      assert.ok(total < (await pipeline.step(schedule, batch(8, 1))).peaks[rank].total);
    }
    pipeline.close();
  }
});

test("a steady evaluation gives back all that it took, and its memory does not grow", async () => {
  const pipeline = createPipeline(two, tinyModel(aligned), { optimizer: adamw() });
  const batch = randomBatch(aligned, 4);
  await pipeline.evaluate(schedule, batch, { outputs: true });
  const before = two.devices.map(({ ledger }) => [ledger.total(), ledger.reserved()]);
  for (let i = 0; i < 5; i++) await pipeline.evaluate(schedule, batch, { outputs: true });
  assert.deepEqual(two.devices.map(({ ledger }) => [ledger.total(), ledger.reserved()]), before);
  pipeline.close();
});

test("an evaluation that fails leaves everything as it was, gradients that are being added up too", async () => {
  let isFaulty = false;
  const fragile = (layer: Layer): Layer => ({
    ...layer,
    forward(y, x, saved) {
      if (isFaulty && y.device.activity === "1F1") throw new Error("a fault");
      layer.forward(y, x, saved);
    },
  });
  const plain = tinyModel(aligned);
  const model = { ...plain, layers: plain.layers.map(fragile) };
  const pipeline = createPipeline(two, model, { optimizer: adamw(), seed: 2 });
  const batch = randomBatch(aligned, 4);
  await pipeline.step(schedule, batch);
  await pipeline.step(schedule, batch, { optimize: false });
  const before = await everything(pipeline), held = two.devices.map(({ ledger }) => ledger.total());
  isFaulty = true;
  await assert.rejects(pipeline.evaluate(schedule, batch), /^RankError: Rank 1 failed at 1F1: a fault$/);
  isFaulty = false;
  assert.deepEqual(await everything(pipeline), before);
  assert.deepEqual(two.devices.map(({ ledger }) => ledger.total()), held);
  await pipeline.step(schedule, batch, { accumulate: true });
  pipeline.close();
});

test("a state that a layer moves on in spite of all is what it was after an evaluation", async () => {
  const plain = resnet("resnet", image);
  let level = 7;
  const restless = (layer: Layer): Layer => ({
    ...layer,
    forward(y, x, saved) {
      layer.forward(y, x, saved);
      for (const buffer of layer.buffers ?? []) fill(saved.state(buffer), level);
    },
  });
  const model = { ...plain, layers: plain.layers.map(restless) };
  const pipeline = createPipeline(two, model, { optimizer: adamw(), seed: 2 });
  const batch = syntheticImages({ size: 8, classes: 3, seed: 2 }).next(8);
  await pipeline.step(schedule, batch);
  const before = await pipeline.state();
  assert.ok([...before.values()].every((values) => values.every((value) => value === 7)));
  level = 8;
  await pipeline.evaluate(schedule, batch);
  assert.deepEqual(await pipeline.state(), before);
  pipeline.close();
});

test("what does not fit is refused before anything runs", async () => {
  const pipeline = createPipeline(two, tinyModel(aligned), { optimizer: adamw() });
  const batch = randomBatch(aligned, 4);
  const wrong: [() => Promise<unknown>, RegExp][] = [
    [
      () => pipeline.evaluate(generate("1f1b-1", { devices: 3 }), batch),
      /is for 3 stages on 3 ranks, the pipeline has 2 on 2/,
    ],
    [() => pipeline.evaluate(schedule, randomBatch(aligned, 3)), /3 samples cannot be cut/],
    [() => pipeline.evaluate(schedule, batch, { optimize: false } as never), /^UserError: .*evaluate.*optimize/],
    [() => pipeline.evaluate("gpipe" as unknown as Schedule, batch), /A schedule must be what generate/],
  ];
  for (const [call, message] of wrong) await assert.rejects(call(), message);
  const running = pipeline.evaluate(schedule, batch);
  await assert.rejects(
    pipeline.evaluate(schedule, batch),
    /The pipeline is in a step: await that before asking for an eval/,
  );
  await running;
  pipeline.close();
});
