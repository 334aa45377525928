/**
 * A number that is not finite is never hidden, through all layers of each family of models: one NaN in any parameter or pixel
 * makes the loss NaN, and one in the loss's gradient reaches the gradient of every parameter.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import { type Placed, placeLayers } from "../../lib/layers/placed.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { lossBackward, lossForward } from "../../lib/losses/run.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { type Model, parametersOf } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { generator } from "../../lib/random.ts";
import { normal, tokens } from "../ops/support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const text = { vocabulary: 11, width: 16, blocks: 1, heads: 2, hidden: 20, length: 8 };
const image = { width: 4, classes: 3 } as const;
const models: Model[] = [
  llama("llama", { ...text, kvHeads: 1 }),
  bert("bert", { ...text, mask: 10, positions: 9, types: 2, dropout: 0.2 }),
  mamba("mamba", { vocabulary: 11, width: 16, blocks: 1, length: 20, state: 4, expand: 2, rank: 4 }),
  resnet("resnet of basic blocks", { ...image, block: "basic", blocks: [1, 1], stem: "3x3", size: 8 }),
  resnet("resnet of bottlenecks", { ...image, block: "bottleneck", blocks: [1, 1], stem: "7x7", size: 16 }),
];

const samples = 4;

/** A batch of the model's, all targets of which count. */
function batchOf({ task, configuration: { length, size, classes, vocabulary } }: Model) {
  if (task === "image") {
    return { inputs: normal(samples * size * size * 3, 1), targets: tokens(samples, classes, 2) };
  }
  const inputs = tokens(samples * length, vocabulary, 1), targets = tokens(samples * length, vocabulary, 2);
  return { inputs, targets, lengths: Uint32Array.of(length, length - 3, length, length) };
}

/** A model on the first device, with all that belongs to it, while `body` lasts. */
async function place(model: Model, body: (placed: Placed) => Promise<void>) {
  const placed = placeLayers(model.layers, set.devices[0], { seed: 3 });
  await body(placed);
  placed.release();
}

/** Runs a whole placed model once; with a gradient of the loss, its W too, which adds to the parameters' gradients. */
async function run(
  placed: Placed,
  model: Model,
  { inputs, targets, lengths }: { inputs: Uint32Array | Float32Array; targets: Uint32Array; lengths?: Uint32Array },
  gradient?: number,
): Promise<number> {
  const layer = sequential(model.layers), { device } = placed;
  const sides = new Map(
    Object.entries({ lengths, seed: Uint32Array.of(5, 0) }).flatMap(([name, data]) =>
      data && layer.reads.sides?.includes(name) ? [[name, fromArray(device, [data.length], data, "activations")]] : []
    ),
  );
  const group = createGroup(placed, 1), saved = createSaved(group, 0, sides);
  const shape = model.inputShape(samples);
  const x = fromArray(device, shape, model.packInputs(inputs), "activations");
  const logits = empty(device, layer.outputShape(shape), "activations");
  const wanted = fromArray(device, [targets.length], targets, "activations"), loss = empty(device, [1], "activations");
  forward(layer, logits, x, saved.child("model"));
  lossForward(model.loss, loss, logits, wanted, saved);
  const [value] = await toArray(loss);
  if (gradient !== undefined) {
    const scale = fromArray(device, [1], Float32Array.of(gradient), "activations");
    const dlogits = empty(device, logits.shape, "derivatives");
    lossBackward(model.loss, dlogits, scale, saved);
    backwardInput(layer, undefined, dlogits, saved.child("model"));
    backwardWeight(layer, [saved.child("model")]);
    release(scale, dlogits);
  }
  saved.clear();
  releaseGroup(group);
  release(x, logits, wanted, loss);
  return value;
}

for (const model of models) {
  const batch = batchOf(model);

  test(`one NaN in any parameter of a ${model.name} makes its loss NaN`, () =>
    place(model, async (placed) => {
      const random = generator(model.name);
      assert.ok(Number.isFinite(await run(placed, model, batch, 1)));
      for (const parameter of parametersOf(model)) {
        const { name } = parameter, { value, gradient } = placed.parameter(parameter);
        // Where the gradient is not 0 the loss depends on it: rows of a table that no token asks for are not read.
        const used = [...(await toArray(gradient)).entries()].flatMap(([i, slope]) => slope === 0 ? [] : [i]);
        assert.ok(used.length > 0, `nothing depends on ${name}`);
        const good = await toArray(value), bad = good.slice(), at = used[random.integer(used.length)];
        bad[at] = NaN;
        placed.device.write(value, bad);
        assert.ok(Number.isNaN(await run(placed, model, batch)), `a NaN at ${at} of ${name} does not show`);
        placed.device.write(value, good);
      }
      assert.ok(Number.isFinite(await run(placed, model, batch)));
    }));

  test(`a NaN in the gradient of a ${model.name}'s loss shows in the gradient of every parameter`, () =>
    place(model, async (placed) => {
      await run(placed, model, batch, NaN);
      for (const parameter of parametersOf(model)) {
        const gradient = await toArray(placed.parameter(parameter).gradient);
        assert.ok(gradient.some((value) => !Number.isFinite(value)), parameter.name);
      }
    }));

  if (model.task !== "image") continue;
  test(`one NaN pixel in the input of a ${model.name} makes its loss NaN`, () =>
    place(model, async (placed) => {
      const random = generator(model.name);
      for (let probe = 0; probe < 12; probe++) {
        const inputs = Float32Array.from(batch.inputs), at = random.integer(inputs.length);
        inputs[at] = NaN;
        assert.ok(Number.isNaN(await run(placed, model, { ...batch, inputs })), `a NaN at ${at} does not show`);
      }
    }));
}

test("a step of a model with a NaN among its parameters is refused, with rank and micro-batch", async () => {
  const [, , , model] = models, { inputs, targets } = batchOf(model);
  const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }), seed: 3 });
  const good = await pipeline.parameters();
  for (const name of ["conv1.weight", "layer1.0.bn1.bias"]) {
    pipeline.setParameters(new Map(good).set(name, good.get(name)!.with(0, NaN)));
    await assert.rejects(
      () => pipeline.step(generate("1f1b-1", { devices: 2 }), { samples, inputs, targets }),
      /Rank 1 failed at 1F0: the loss of the micro-batch is NaN/,
    );
  }
  pipeline.close();
});
