import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { countParameters, type Model } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { aligned, assertSameGradients, randomBatch, tinyModel } from "./support.ts";

let one: DeviceSet, two: DeviceSet, three: DeviceSet;
before(async () => {
  [one, two] = [await openDevices(1), await openDevices(2)];
  three = await openDevices(3, { virtual: true });
});
after(() => [one, two, three].forEach((set) => set.close()));

/** The tiny model with its head tied to the embedding. */
function tiedModel(): Model {
  const model = tinyModel(aligned);
  const head = linear("tied_head", aligned.width, aligned.vocabulary, { transposed: true });
  const blocks = model.layers.slice(0, -1);
  return { ...model, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}

test("tied parameters count once, start alike, and have the gradient of one parameter in two places", async () => {
  const model = tiedModel();
  assert.equal(countParameters(model), countParameters(tinyModel(aligned)) - aligned.width * (aligned.vocabulary + 1));
  const pipeline = createPipeline(two, model, { optimizer: sgd({ learningRate: 0.1 }), seed: 3 });
  const values = await pipeline.parameters();
  assert.deepEqual(values.get("tied_head.weight"), values.get("embedding.weight"));

  const batch = randomBatch(aligned, 2);
  const { optimizerAfter } = await pipeline.step(generate("1f1b-1", { devices: 2 }), batch, { optimize: false });
  assert.equal(optimizerAfter, undefined);
  const gradient = (await pipeline.gradients()).get("embedding.weight")!;
  // Central difference of the pipeline's own loss with both copies moved: what one parameter in two places means.
  const table = values.get("embedding.weight")!;
  const at = 37, h = 0.02;
  const lossAt = async (value: number) => {
    const moved = table.slice();
    moved[at] = value;
    pipeline.setParameters(new Map(values).set("embedding.weight", moved)); // the copy moves with it
    return (await pipeline.step(generate("1f1b-1", { devices: 2 }), batch, { optimize: false })).loss;
  };
  const slope = (await lossAt(table[at] + h) - await lossAt(table[at] - h)) / (2 * h);
  assert.ok(Math.abs(gradient[at] - slope) < 2e-2 * Math.abs(slope) + 1e-5, `${gradient[at]} against ${slope}`);
  pipeline.close();
});

for (const name of ["naive", "1f1b-1"]) {
  test(`tied parameters stay alike through training with ${name} and 2BP, as on one device`, async () => {
    const train = async (set: DeviceSet, devices: number) => {
      const pipeline = createPipeline(set, tiedModel(), { optimizer: sgd({ learningRate: 0.5 }), seed: 3 });
      const schedule = twoStage(generate(name, { devices, microbatches: 2 }));
      for (let step = 0; step < 3; step++) {
        const { optimizerAfter } = await pipeline.step(schedule, randomBatch(aligned, 4, step));
        assert.deepEqual(optimizerAfter, devices === 1 ? [[]] : [[1], [0]]);
      }
      const parameters = await pipeline.parameters();
      pipeline.close();
      return parameters;
    };
    const [together, apart] = [await train(one, 1), await train(two, 2)];
    assert.deepEqual(apart.get("tied_head.weight"), apart.get("embedding.weight"));
    assertSameGradients(apart, together, 1e-5, "parameters after three steps");
  });
}

/** What a step makes of the tied model when the first element of the gradient of some layers is another. */
async function withGradients(set: DeviceSet, values: Readonly<Record<number, number>>, precision?: "mixed") {
  const tied = tiedModel();
  const overwritten = (layer: Layer, value: number): Layer => ({
    ...layer,
    backwardWeight(saved) {
      layer.backwardWeight!(saved);
      const [{ device, gradient }] = saved;
      device.write(gradient(layer.parameters[0]), Float32Array.of(value));
    },
  });
  const layers = tied.layers.map((layer, index) => index in values ? overwritten(layer, values[index]) : layer);
  const pipeline = createPipeline(set, { ...tied, layers }, {
    optimizer: sgd({ learningRate: 2 ** -120 }),
    ...(precision ? { precision, lossScale: 2 } : {}),
  });
  const before = await pipeline.parameters();
  try {
    const schedule = generate("1f1b-1", { devices: set.devices.length, microbatches: 2 });
    const { skipped, overflow } = await pipeline.step(schedule, randomBatch(aligned, 2)).catch(async (error) => {
      assert.deepEqual(await pipeline.parameters(), before);
      throw error;
    });
    const after = await pipeline.parameters();
    if (skipped) assert.deepEqual(after, before);
    const [one, other] = ["embedding.weight", "tied_head.weight"].map((name) => after.get(name)![0]);
    assert.equal(one, other);
    return { moved: before.get("embedding.weight")![0] - one, skipped, overflow };
  } finally {
    pipeline.close();
  }
}

/** Layers of the model: the twins, and a block between them, which is on a rank of its own where there are three. */
const first = 0, between = 2, last = 5;

test("tied gradients that are finite, and their sum is not, are no update: f32 fails, mixed precision skips", async () => {
  for (const set of [two, three]) {
    for (const [one, other] of [[2 ** 127, 2 ** 127], [-(2 ** 127), -1.9 * 2 ** 127]]) {
      const values = { [first]: one, [last]: other };
      await assert.rejects(withGradients(set, values), {
        message: 'Rank 0 failed at optimizer: the gradient of "embedding.weight" is not finite',
      });
      if (!set.devices[0].gpu.info.f16) continue;
      const { skipped, overflow } = await withGradients(set, values, "mixed");
      assert.deepEqual({ skipped, overflow }, { skipped: true, overflow: { rank: 0, parameter: "embedding.weight" } });
    }
  }
});

test("tied gradients as large as f32 can hold are updates as long as their sum is finite, and infinite ones never", async () => {
  for (const set of [one, two, three]) {
    for (const [one, other] of [[2 ** 127, -(2 ** 126)], [1.9 * 2 ** 127, -1.9 * 2 ** 127], [2 ** 126, 2 ** 126]]) {
      const expected = Math.fround((one + other) * 2 ** -120);
      const { moved } = await withGradients(set, { [first]: one, [last]: other });
      assert.ok(Math.abs(moved - expected) <= 1e-5 * Math.abs(expected) + 1e-5, `${one}, ${other}: ${moved}`);
    }
    for (const [one, other] of [[Infinity, 1], [1, NaN], [Infinity, -Infinity]]) {
      await assert.rejects(
        withGradients(set, { [first]: one, [last]: other }),
        /^RankError: Rank 0 failed at optimizer: the gradient of "embedding/,
      );
    }
  }
});

test("a gradient that is not finite is told of the rank that it is on, whichever ranks have tied parameters", async () => {
  await assert.rejects(
    withGradients(three, { [first]: 2 ** 127, [between]: -Infinity, [last]: 1 }),
    /^RankError: Rank 1 failed at optimizer: the gradient of "blocks\.0\..*" is not finite$/,
  );
});
