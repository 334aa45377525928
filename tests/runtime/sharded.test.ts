/** Moments that are shared out over replicas: the same training in less memory. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { linear } from "../../lib/layers/linear.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import type { Model } from "../../lib/models/model.ts";
import { lengthOf, piecesOf } from "../../lib/runtime/pieces.ts";
import { createPipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { muon } from "../../lib/train/muon.ts";
import { adamw, lion, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import { deep, randomBatch, tinyModel } from "./support.ts";

let real: DeviceSet, virtual: DeviceSet;
before(async () => {
  real = await openDevices(4, { virtual: false });
  virtual = await openDevices(4, { virtual: true });
});
after(() => [real, virtual].forEach((set) => set.close()));

const schedule = twoStage(generate("1f1b-1", { devices: 2, microbatches: 2 }));
const naive = generate("naive", { devices: 1 });

/** The tiny model with its head tied to the embedding. */
function tiedModel(): Model {
  const model = tinyModel(deep);
  const head = linear("tied_head", deep.width, deep.vocabulary, { transposed: true });
  const blocks = model.layers.slice(0, -1);
  return { ...model, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}

/** Three steps: what a pipeline has then, and what it took. */
async function train(set: DeviceSet, make: () => Model, options: PipelineOptions, clip = 10) {
  const pipeline = createPipeline(set, make(), { ...options, seed: 4 });
  const how = options.replicas === 4 ? naive : schedule, results = [];
  for (const seed of [1, 2]) {
    const { loss, gradientNorm, clipped } = await pipeline.step(how, randomBatch(deep, 8, seed), { clip });
    results.push({ loss, gradientNorm, clipped });
  }
  const state = await pipeline.optimizerState();
  pipeline.setOptimizerState(state); // which is written where it was read
  const { peaks } = await pipeline.step(how, randomBatch(deep, 8, 3));
  const trained = { results, state: await pipeline.optimizerState(), parameters: await pipeline.parameters() };
  const optimizerBytes = set.devices.map(({ ledger }) => ledger.live.optimizer);
  const peaksInUse = peaks.map(({ total, needed }) => ({ total, needed }));
  pipeline.close();
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0, 0, 0]);
  return { trained, optimizerBytes, peaksInUse };
}

/** Each replica counts the squares of its own pieces: in another order. */
const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-6 * b, `${a}, not ${b}`);

const optimizers: Readonly<Record<string, OptimizerSpec>> = {
  "SGD with momentum": sgd({ learningRate: 0.1, momentum: 0.9 }),
  AdamW: adamw({ learningRate: 0.01, groups: [{ match: /norm/, weightDecay: 0.1 }] }),
  Lion: lion({ learningRate: 0.01 }),
  Muon: muon({ learningRate: 0.01, others: { match: /embedding|head/ } }),
};

for (const [name, optimizer] of Object.entries(optimizers)) {
  test(`${name} on pieces makes the bits of ${name} on all parameters, and its state is of all`, async () => {
    const set = name === "Lion" ? virtual : real, options = { optimizer, replicas: 2 };
    const whole = await train(set, () => tinyModel(deep), options);
    const pieces = await train(set, () => tinyModel(deep), { ...options, shardOptimizer: true });
    pieces.trained.results.forEach(({ gradientNorm, loss }, at) => {
      assert.equal(loss, whole.trained.results[at].loss);
      near(gradientNorm!, whole.trained.results[at].gradientNorm!);
    });
    assert.deepEqual(pieces.trained.parameters, whole.trained.parameters);
    assert.deepEqual(new Map([...pieces.trained.state.values].sort()), new Map([...whole.trained.state.values].sort()));
    const sum = (bytes: readonly number[]) => bytes.reduce((total, each) => total + each);
    const share = sum(pieces.optimizerBytes) / sum(whole.optimizerBytes);
    // Muon needs room for products of its largest matrices whatever its share.
    assert.ok(share < (name === "Muon" ? 0.9 : 0.6), `${share} of the memory`);
  });
}

test("so they do in mixed precision with tied weights, and kernels read the same on all replicas", async (t) => {
  if (!real.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  const options = { optimizer: adamw({ learningRate: 0.01 }), replicas: 2, precision: "mixed" } as const;
  const whole = await train(virtual, tiedModel, options);
  const pieces = await train(virtual, tiedModel, { ...options, shardOptimizer: true });
  assert.deepEqual(pieces.trained.parameters, whole.trained.parameters);
});

test("where gradients are clipped, by the norm of all pieces, the update is the same but for the norm's rounding", async () => {
  const options = { optimizer: sgd({ learningRate: 0.1 }), replicas: 2 };
  const whole = await train(real, tiedModel, options, 0.002);
  const pieces = await train(real, tiedModel, { ...options, shardOptimizer: true }, 0.002);
  pieces.trained.results.forEach(({ clipped }, at) => {
    assert.ok(clipped! < 0.9);
    near(clipped!, whole.trained.results[at].clipped!);
  });
  for (const [name, values] of pieces.trained.parameters) {
    values.forEach((value, i) => assert.ok(Math.abs(value - whole.trained.parameters.get(name)![i]) < 1e-6, name));
  }
});

test("four replicas hold a quarter of the moments each, and what a step takes is what was predicted", async () => {
  const options = { optimizer: adamw({ learningRate: 0.01 }), replicas: 4 };
  const { software, subgroupSize } = real.devices[0].gpu.info;
  const all = await train(real, () => tinyModel(deep), options);
  const { optimizerBytes, peaksInUse } = await train(real, () => tinyModel(deep), { ...options, shardOptimizer: true });
  for (const [peer, bytes] of optimizerBytes.entries()) {
    assert.ok(Math.abs(bytes / all.optimizerBytes[peer] - 0.25) < 0.02, `${bytes} of ${all.optimizerBytes[peer]}`);
  }
  const predicted = await predictMemory(tinyModel(deep), naive, 2, {
    ...options,
    ...{ shardOptimizer: true, software, subgroupSize },
  });
  assert.deepEqual(peaksInUse, predicted.map(({ total, needed }) => ({ total, needed })));
});

test("pieces are as equal as grains and whole matrices let them be, and cover everything once", () => {
  for (
    const [count, replicas, grain, starts] of [
      [640, 3, 64, []],
      [64, 3, 64, []],
      [1000, 4, 128, []],
      [1280, 2, 64, [0, 128, 192, 1024]],
      [1280, 4, 64, [0, 1024]],
    ] as const
  ) {
    const pieces = piecesOf(count, replicas, grain, starts);
    assert.equal(pieces.length, replicas);
    let end = 0;
    for (const piece of pieces) {
      assert.equal(piece.start, end);
      end = piece.end;
      assert.ok(lengthOf(piece) >= 0);
      const last = starts[starts.length - 1] ?? 0;
      assert.ok(
        piece.start === count ||
          (piece.start < last ? starts.includes(piece.start as never) : piece.start % grain === 0),
      );
      if (starts.length === 0) assert.ok(Math.abs(lengthOf(piece) - count / replicas) <= grain);
    }
    assert.equal(end, count);
  }
});

test("an optimizer is shared out over several replicas only", () => {
  assert.throws(() => createPipeline(real, tinyModel(deep), { optimizer: adamw(), shardOptimizer: true }), {
    name: "UserError",
    message: "createPipeline: `shardOptimizer` is over replicas, and there is one: set `replicas`",
  });
});
