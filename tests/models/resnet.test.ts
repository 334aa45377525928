import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import { lossBackward, lossForward } from "../../lib/losses/run.ts";
import { countParameters, parametersOf } from "../../lib/models/model.ts";
import { resnet, resnetConfigurations } from "../../lib/models/resnet.ts";
import { partition, stageFlops } from "../../lib/runtime/partition.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { close, device } from "../ops/support.ts";

after(close);

const named = (name: string) => resnet(name, resnetConfigurations[name]);

test("the public sizes have the numbers of parameters that torchvision states", () => {
  assert.equal(countParameters(named("resnet-50")), 25_557_032);
  assert.equal(countParameters(named("resnet-101")), 44_549_160);
  assert.equal(countParameters(named("resnet-152")), 60_192_808);
  // resnet18 of torchvision, made of basic blocks.
  const basic = resnet("resnet-18", { ...resnetConfigurations["resnet-50"], block: "basic", blocks: [2, 2, 2, 2] });
  assert.equal(countParameters(basic), 11_689_512);
});

test("parameters and buffers have torchvision's names", () => {
  const model = named("resnet-50");
  const names = new Set(parametersOf(model).map(({ name }) => name));
  const expected = ["conv1.weight", "bn1.bias", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.weight"];
  for (const name of [...expected, "layer2.3.conv2.weight", "layer4.2.bn3.weight", "fc.weight", "fc.bias"]) {
    assert.ok(names.has(name), name);
  }
  const buffers = model.layers.flatMap((layer) => layer.buffers ?? []).map(({ name }) => name);
  assert.equal(buffers.length, 2 * 53);
  assert.ok(buffers.includes("layer3.5.bn2.running_var") && buffers.includes("layer1.0.downsample.1.running_mean"));
});

test("ResNet-50 takes 4.1 billion multiplications forward, and of four stages none has a fifth more than its share", () => {
  const model = named("resnet-50");
  const forward = sequential(model.layers).flops(model.inputShape(1)).f / 2;
  assert.ok(forward > 4.08e9 && forward < 4.2e9, `${forward}`);
  let shape = model.inputShape(1);
  const loads = partition(model, 4).map((layers) => {
    const load = stageFlops(layers, shape);
    shape = sequential(layers).outputShape(shape);
    return load;
  });
  const share = loads.reduce((sum, load) => sum + load, 0) / 4;
  assert.ok(Math.max(...loads) < 1.2 * share, `${loads}`);
});

test("images shrink by 32 on their way through ResNet-50, and end as one row of classes a sample", () => {
  const { layers, inputShape } = named("resnet-50");
  const body = sequential(layers.slice(0, -1));
  assert.deepEqual(body.outputShape(inputShape(2)), [2, 7, 7, 2048]);
  assert.deepEqual(sequential(layers).outputShape(inputShape(2)), [2, 1000]);
});

test("a small ResNet's loss falls on synthetic images, and every parameter has a gradient", async () => {
  const on = await device();
  const configuration = { block: "bottleneck", blocks: [1, 1], width: 8, stem: "3x3", size: 16, classes: 4 } as const;
  const model = resnet("small", configuration);
  const layer = sequential(model.layers);
  const before = on.ledger.total();
  const placed = placeLayers([layer], on, { seed: 1 });
  const optimizers = placed.blocks.map(({ values, gradients, decayed }) =>
    sgd({ learningRate: 0.05, momentum: 0.9 }).create(values, gradients, decayed)
  );
  const source = syntheticImages({ size: 16, classes: 4, seed: 1 });
  const samples = 16;
  const scale = fromArray(on, [1], Float32Array.of(1 / samples), "gradients");
  const losses: number[] = [];
  for (let step = 0; step < 60; step++) {
    const { inputs, targets } = source.next(samples);
    const group = createGroup(placed, 1);
    const saved = createSaved(group, 0);
    const x = fromArray(on, model.inputShape(samples), inputs, "activations");
    const logits = empty(on, [samples, 4], "activations"), dlogits = empty(on, [samples, 4], "derivatives");
    const wanted = fromArray(on, [samples], targets, "activations"), loss = empty(on, [1], "activations");
    forward(layer, logits, x, saved);
    lossForward(model.loss, loss, logits, wanted, saved);
    lossBackward(model.loss, dlogits, scale, saved);
    backwardInput(layer, undefined, dlogits, saved);
    backwardWeight(layer, [saved]);
    if (step === 0) {
      for (const each of layer.parameters) {
        const gradient = await toArray(placed.parameter(each).gradient);
        assert.ok(gradient.some((value) => value !== 0), `the gradient of ${each.name} is zero`);
      }
    }
    for (const optimizer of optimizers) {
      optimizer.prepare();
      optimizer.step();
      optimizer.commit();
    }
    losses.push((await toArray(loss))[0] / samples);
    saved.clear();
    releaseGroup(group);
    release(x, logits, dlogits, wanted, loss);
  }
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [first, last] = [mean(losses.slice(0, 5)), mean(losses.slice(-5))];
  assert.ok(last < 0.7 * first, `from ${first} to ${last}`);
  release(scale);
  optimizers.forEach((optimizer) => optimizer.release());
  placed.release();
  assert.equal(on.ledger.total(), before);
});
