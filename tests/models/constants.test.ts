import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama, type LlamaConfiguration } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet, type ResnetConfiguration } from "../../lib/models/resnet.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import type { Batch } from "../../lib/train/data.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { loadWeights } from "../../lib/weights/checkpoint.ts";
import { randomBatch, tiny } from "../runtime/support.ts";
import { bertLoss } from "../reference/bert.ts";
import { llamaLoss } from "../reference/llama.ts";
import { assertDifferences } from "./support.ts";

const optimizer = sgd({ learningRate: 0.1 });
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

/** Tokens as tests/fixtures/llama_bf16.py draws them. */
function tokens(seed: number): Uint32Array {
  return Uint32Array.from({ length: 32 }, () => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor(seed / 65536) % 19;
  });
}

const losses: { epsilon: number; theta: number; tied: boolean; loss: number }[] = JSON.parse(
  readFileSync(fixture("llama_bf16.json"), "utf8"),
);

test("a LLaMa checkpoint has the losses of NumPy's float64 for each epsilon and theta that it may be trained with", async () => {
  const sizes = { vocabulary: 19, width: 16, blocks: 2, heads: 2, hidden: 16, length: 8 };
  const batch = { samples: 4, inputs: tokens(1), targets: tokens(2) };
  const untied = losses.filter(({ tied }) => !tied);
  assert.deepEqual(untied.map(({ loss }) => loss.toFixed(5)), ["5.04989", "5.05880", "5.04759"]);
  for (const { epsilon, theta, loss: expected } of untied) {
    const pipeline = createPipeline(set, llama("t", { ...sizes, epsilon, ropeTheta: theta }), { optimizer });
    loadWeights(pipeline, fixture("llama_bf16"));
    const { loss } = await pipeline.step(schedule, batch, { optimize: false });
    assert.ok(Math.abs(loss - expected) < 2e-6 * expected, `${epsilon}, ${theta}: ${loss} instead of ${expected}`);
    pipeline.close();
  }
});

test("a LLaMa with a tied head, another epsilon and another theta has the loss and gradients of the model in float64", async () => {
  // Large constants, so that one that is left out anywhere shows.
  const configuration: LlamaConfiguration = { ...tiny, width: 16, heads: 4, epsilon: 0.01, ropeTheta: 50, tied: true };
  const pipeline = createPipeline(set, llama("tied", configuration), { optimizer, seed: 5 });
  const batch = randomBatch(configuration, 2);
  const parameters = await pipeline.parameters();
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const gradients = await pipeline.gradients();
  pipeline.close();
  const values = new Map([...parameters].map(([name, array]) => [name, Float64Array.from(array)]));
  const [head, table] = ["head.weight", "embedding.weight"];
  assert.deepEqual(values.get(head), values.get(table), "tied weights start alike");
  values.set(head, values.get(table)!);
  const expected = llamaLoss(configuration, values, batch);
  assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);
  assertDifferences(() => llamaLoss(configuration, values, batch), values, gradients);
});

test("a tied LLaMa's copies stay alike", async () => {
  const pipeline = createPipeline(set, llama("tied", { ...tiny, tied: true }), { optimizer, seed: 5 });
  for (let step = 0; step < 3; step++) await pipeline.step(schedule, randomBatch(tiny, 2));
  const parameters = await pipeline.parameters();
  assert.deepEqual(parameters.get("head.weight"), parameters.get("embedding.weight"));
  pipeline.close();
});

test("a BERT with another epsilon has the loss of the model in float64", async () => {
  const sizes = { vocabulary: 19, mask: 18, width: 12, blocks: 2, heads: 2, hidden: 10, positions: 9, types: 2 };
  const configuration = { ...sizes, length: 7, dropout: 0, epsilon: 0.1 };
  const pipeline = createPipeline(set, bert("b", configuration), { optimizer, seed: 5 });
  const batch = { ...randomBatch({ ...tiny, ...configuration }, 2), lengths: Uint32Array.of(7, 5), seed: 1 };
  const values = new Map([...await pipeline.parameters()].map(([name, array]) => [name, Float64Array.from(array)]));
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  pipeline.close();
  const expected = bertLoss(configuration, values, batch);
  assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);
  const other = bertLoss({ ...configuration, epsilon: 1e-12 }, values, batch);
  assert.ok(Math.abs(loss - other) > 1e-5 * expected, "the epsilon shows in this loss");
});

/** The loss of a model some of whose parameters are multiplied by a factor. */
async function lossOf(model: Model, batch: Batch, factor: (name: string) => number): Promise<number> {
  const pipeline = createPipeline(set, model, { optimizer, seed: 5 });
  const values = await pipeline.parameters();
  pipeline.setParameters(
    new Map([...values].map(([name, array]) => [name, array.map((value) => value * factor(name))])),
  );
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  pipeline.close();
  return loss;
}

test("a Mamba whose residual stream is twice as large has the same loss where every epsilon is four times as large", async () => {
  const sizes = { vocabulary: 19, width: 6, blocks: 3, state: 4, expand: 2, rank: 3, length: 7 };
  const batch = randomBatch({ ...tiny, vocabulary: 19, length: 7 }, 2);
  const of = (epsilon: number, factor: (name: string) => number) =>
    lossOf(mamba("m", { ...sizes, epsilon }), batch, factor);
  const plain = await of(0.01, () => 1);
  // The tied head is twice as large as well, for which the last gain makes up.
  const doubled = (name: string) =>
    /^(embedding|head)\.weight$|out_proj\.weight$/.test(name) ? 2 : name === "norm.weight" ? 0.5 : 1;
  assert.ok(Math.abs(await of(0.04, doubled) - plain) < 1e-6 * plain);
  assert.ok(Math.abs(await of(0.01, doubled) - plain) > 1e-5 * plain, "the epsilon shows in this loss");
});

const small: ResnetConfiguration = { block: "bottleneck", blocks: [1, 2], width: 4, stem: "7x7", size: 16, classes: 3 };

test("a ResNet whose convolutions are twice as large has the same loss where every epsilon is four times as large", async () => {
  for (const block of ["bottleneck", "basic"] as const) {
    const batch = syntheticImages({ size: 16, classes: 3, seed: 1 }).next(8);
    const of = (epsilon: number, factor: (name: string) => number) =>
      lossOf(resnet("r", { ...small, block, epsilon }), batch, factor);
    const plain = await of(0.01, () => 1);
    const doubled = (name: string) => /conv\d\.weight$|downsample\.0\.weight$/.test(name) ? 2 : 1;
    assert.ok(Math.abs(await of(0.04, doubled) - plain) < 1e-6 * plain);
    assert.ok(Math.abs(await of(0.01, doubled) - plain) > 1e-5 * plain, "the epsilon shows in this loss");
  }
});

test("a ResNet's running means move by its momentum", async () => {
  const batch = syntheticImages({ size: 16, classes: 3, seed: 1 }).next(2);
  const means = async (momentum?: number) => {
    const model = resnet("r", { ...small, ...momentum ? { momentum } : {} });
    const pipeline = createPipeline(set, model, { optimizer, seed: 5 });
    await pipeline.step(generate("naive", { devices: 2, microbatches: 1 }), batch);
    const values = [...await pipeline.state()].flatMap(([name, mean]) => name.endsWith("running_mean") ? [mean] : []);
    pipeline.close();
    return values;
  };
  const [whole, half, published] = [await means(1), await means(0.5), await means()];
  assert.equal(whole.length, 12);
  whole.forEach((values, buffer) =>
    values.forEach((mean, i) => {
      assert.ok(Math.abs(half[buffer][i] - 0.5 * mean) <= 1e-6 * Math.abs(mean));
      assert.ok(Math.abs(published[buffer][i] - 0.1 * mean) <= 1e-6 * Math.abs(mean));
    })
  );
});
