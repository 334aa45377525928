import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import type { Batch } from "../../lib/train/data.ts";
import { cosineDecay } from "../../lib/train/learning_rates.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import type { TrainEvaluation } from "../../lib/training/evaluation.ts";
import { train, type TrainOptions, type TrainStep } from "../../lib/training/train.ts";
import { aligned, randomBatch, tinyModel } from "../runtime/support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const optimizer = adamw({ learningRate: 0.01 });
const make = (model = tinyModel(aligned)) => createPipeline(set, model, { optimizer, seed: 3 });
const batchOf = (index: number) => randomBatch(aligned, 4, index);
/** A source that draws batch 0, 1, 2 and so on. */
function source() {
  let drawn = 0;
  return { next: () => batchOf(drawn++), drawn: () => drawn };
}
const closed = async (pipeline: Pipeline) => {
  const parameters = await pipeline.parameters();
  pipeline.close();
  return parameters;
};

test("train() makes the steps that a loop by hand makes, to the bit, with rates, clipping and evaluations in between", async () => {
  const learningRate = cosineDecay({ steps: 5, warmUp: 2 }), clip = 0.2, heldOut = batchOf(99);
  const byHand = make(), expected: number[] = [], norms: number[] = [], held: number[] = [];
  for (let step = 0; step < 5; step++) {
    const { loss, gradientNorm } = await byHand.step(schedule, batchOf(step), { rate: learningRate(step), clip });
    expected.push(loss);
    norms.push(gradientNorm!);
    if (step % 2 === 1 || step === 4) held.push((await byHand.evaluate(schedule, heldOut)).loss);
  }
  const pipeline = make(), steps: TrainStep[] = [], evaluations: TrainEvaluation[] = [];
  const result = await train(pipeline, {
    ...{ schedule, data: source(), samples: 4, steps: 5, learningRate, clip },
    evaluation: { every: 2, batches: [heldOut] },
    onStep: (step) => steps.push(step),
    onEvaluation: (evaluation) => evaluations.push(evaluation),
  });
  assert.deepEqual(steps.map(({ loss }) => loss), expected);
  assert.deepEqual(steps.map(({ gradientNorm }) => gradientNorm), norms);
  assert.deepEqual(steps.map(({ learningRate }) => learningRate), [0, 1, 2, 3, 4].map((at) => 0.01 * learningRate(at)));
  assert.deepEqual(evaluations.map(({ loss }) => loss), held);
  assert.deepEqual(evaluations.map(({ step }) => step), [2, 4, 5]);
  assert.equal(result.ended, "steps");
  assert.equal(result.steps, 5);
  assert.equal(result.loss, expected[4]);
  assert.equal(result.evaluation?.loss, held[2]);
  assert.equal(result.best?.loss, Math.min(...held));
  assert.deepEqual(await closed(pipeline), await closed(byHand));
});

test("batches that are added up make the update of their mean; the last of an epoch may be fewer", async () => {
  const byHand = make();
  for (const group of [[0, 1], [2], [0, 1], [2]]) {
    for (const [index, at] of group.entries()) {
      const optimize = index === group.length - 1;
      await byHand.step(schedule, batchOf(at), { optimize, accumulate: index > 0, share: 1 / group.length });
    }
  }
  const pipeline = make(), epochs: number[] = [];
  const result = await train(pipeline, {
    ...{ schedule, data: () => [batchOf(0), batchOf(1), batchOf(2)], epochs: 2, accumulate: 2 },
    onStep: ({ epoch, results }) => epochs.push(epoch, results.length),
  });
  assert.deepEqual(epochs, [0, 2, 0, 1, 1, 2, 1, 1]);
  assert.deepEqual([result.steps, result.ended], [4, "epochs"]);
  assert.deepEqual(await closed(pipeline), await closed(byHand));
});

test("it takes batches that come as promises and iterables of any kind, and gives an iterator back that it leaves early", async () => {
  let isBack = false;
  async function* drawn() {
    try {
      for (let i = 0;; i++) yield await Promise.resolve(batchOf(i));
    } finally {
      isBack = true;
    }
  }
  const one = make(), other = make(), third = make();
  assert.equal((await train(one, { schedule, data: drawn, steps: 3 })).steps, 3);
  assert.ok(isBack);
  let at = 0;
  const data = { next: () => Promise.resolve(batchOf(at++)) };
  await train(other, { schedule, data, samples: 4, steps: 3 });
  await train(third, { schedule, data: () => [0, 1, 2].map((i) => Promise.resolve(batchOf(i))), epochs: 1 });
  const expected = await closed(one);
  assert.deepEqual(await closed(other), expected);
  assert.deepEqual(await closed(third), expected);
});

test("it stops when the held-out loss has not become better for so many evaluations", async () => {
  const pipeline = make(), told: boolean[] = [];
  const result = await train(pipeline, {
    ...{ schedule, data: source(), samples: 4, steps: 20, learningRate: () => 0 },
    evaluation: { every: 2, batches: [batchOf(99)], patience: 3 },
    onEvaluation: ({ isBest }) => told.push(isBest),
  });
  assert.deepEqual([result.ended, result.steps], ["patience", 8]);
  assert.deepEqual(told, [true, false, false, false], "at a rate of 0 nothing becomes better");
  assert.equal(result.best?.step, 2);
  pipeline.close();
});

test("the loss of several held-out batches is the mean over their targets", async () => {
  const pipeline = make();
  const few = batchOf(1);
  const batches: Batch[] = [batchOf(0), {
    ...few,
    targets: few.targets.map((target, i) => i < 5 ? target : 0xffff_ffff),
  }];
  const { evaluation } = await train(pipeline, {
    ...{ schedule, data: source(), samples: 4, steps: 1, learningRate: () => 0, evaluation: { every: 1, batches } },
  });
  const [a, b] = [await pipeline.evaluate(schedule, batches[0]), await pipeline.evaluate(schedule, batches[1])];
  assert.equal(b.targets, 5);
  const expected = (a.loss * a.targets + b.loss * 5) / (a.targets + 5);
  assert.ok(Math.abs(evaluation!.loss - expected) < 1e-12);
  pipeline.close();
});

test("a signal ends it between updates: the one that has begun is made whole", async () => {
  const controller = new AbortController(), pipeline = make();
  let seen = 0;
  const data = {
    next() {
      if (++seen === 4) controller.abort(); // while the second update's batches are drawn
      return batchOf(seen - 1);
    },
  };
  const options: TrainOptions = { schedule, data, samples: 4, steps: 9, accumulate: 2, signal: controller.signal };
  const result = await train(pipeline, options);
  assert.deepEqual([result.ended, result.steps], ["signal", 1]);
  const byHand = make();
  await train(byHand, { schedule, data: source(), samples: 4, steps: 1, accumulate: 2 });
  assert.deepEqual(await closed(pipeline), await closed(byHand));
});

test("a signal between updates leaves the source behind the batches that were trained on", async () => {
  const controller = new AbortController(), pipeline = make();
  let drawn = 0;
  const data = { next: () => batchOf(drawn++) };
  const options: TrainOptions = {
    ...{ schedule, data, samples: 4, steps: 9, accumulate: 2, signal: controller.signal },
    onStep: ({ step }) => step === 1 && controller.abort(),
  };
  const { ended, steps } = await train(pipeline, options);
  assert.deepEqual([ended, steps, drawn], ["signal", 2, 4]);
  const again = await train(pipeline, options);
  assert.deepEqual([again.ended, again.steps, drawn], ["signal", 0, 4]);
  pipeline.close();
});

test("of an update that fails in the midst of its batches nothing is left", async () => {
  let isFaulty = false;
  const fragile = (layer: Layer): Layer => ({
    ...layer,
    forward(y, x, saved) {
      if (isFaulty) throw new Error("a fault");
      layer.forward(y, x, saved);
    },
  });
  const plain = tinyModel(aligned), pipeline = make({ ...plain, layers: plain.layers.map(fragile) });
  const before = await pipeline.parameters();
  const data = function* () {
    yield batchOf(0);
    yield batchOf(1);
  };
  let steps = 0;
  const stepping: Pipeline = {
    ...pipeline,
    step(...given) {
      isFaulty = steps++ === 1;
      return pipeline.step(...given);
    },
  };
  await assert.rejects(train(stepping, { schedule, data, epochs: 1, accumulate: 2 }), /failed at 0F0: a fault/);
  isFaulty = false;
  assert.deepEqual(await pipeline.parameters(), before);
  for (const values of (await pipeline.gradients()).values()) assert.ok(values.every((value) => value === 0));
  assert.equal((await train(pipeline, { schedule, data, epochs: 1, accumulate: 2 })).steps, 1);
  pipeline.close();
});

test("in mixed precision an update whose gradients overflow is left out, with all its batches, and the next is made", async (t) => {
  if (!set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const pipeline = createPipeline(set, tinyModel(aligned), {
    optimizer,
    seed: 3,
    precision: "mixed",
    lossScale: 2 ** 40,
  });
  const steps: TrainStep[] = [];
  await train(pipeline, {
    ...{ schedule, data: source(), samples: 4, steps: 30, accumulate: 2, clip: 1, onStep: (step) => steps.push(step) },
  });
  const first = steps.findIndex(({ skipped }) => !skipped);
  assert.ok(first > 0, "the scale was too large, and then it was not");
  for (const { skipped, results, learningRate } of steps) {
    assert.equal(results.length, skipped ? results.findIndex((each) => each.skipped) + 1 : 2);
    assert.equal(learningRate, skipped ? undefined : 0.01);
  }
  pipeline.close();
});

test("what makes no sense is refused before anything runs", async () => {
  const pipeline = make(), good = { schedule, data: source(), samples: 4, steps: 1 };
  const refused: [object, RegExp][] = [
    [{ steps: undefined }, /^UserError: train: it needs `steps`, or `epochs`/],
    [{ steps: 0 }, /^UserError: train: steps must be a whole number, 1 or more, not 0$/],
    [{ epochs: 2 }, /^UserError: train: a source has no end and so no epochs/],
    [{ samples: undefined }, /^UserError: train: a source needs `samples`/],
    [{ data: () => [] }, /^UserError: train: `samples` is what a source is to draw/],
    [{ data: [] }, /^UserError: train: data must be a source of batches/],
    [{ clip: 0 }, /^UserError: train: clip must be/],
    [{ lr: 1 }, /^UserError: train: there is no "lr"/],
    [{ learningRate: 0.1 }, /^UserError: train: learningRate must be a function of the step/],
    [{ learningRate: () => NaN }, /^UserError: train: the learning rate's factor of step 0 must be/],
    [{ evaluation: { every: 0, batches: [batchOf(0)] } }, /^UserError: train: evaluation: every must be/],
    [{ evaluation: { every: 1, batches: [] } }, /^UserError: train: evaluation: batches must be a list of one or more/],
    [{ schedule: generate("gpipe", { devices: 3 }) }, /is for 3 stages on 3 ranks/],
  ];
  const before = await pipeline.parameters();
  for (const [change, message] of refused) {
    await assert.rejects(train(pipeline, { ...good, ...change }), message);
  }
  const empty = { data: () => [], samples: undefined, steps: 1 };
  await assert.rejects(train(pipeline, { ...good, ...empty }), /^UserError: train: epoch 0 has no batches$/);
  await assert.rejects(train({} as Pipeline, good), /^UserError: train: the pipeline must be a Pipeline/);
  assert.deepEqual(await pipeline.parameters(), before);
  pipeline.close();
});
