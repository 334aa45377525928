import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { bert, type BertConfiguration } from "../../lib/models/bert.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { type Batch, ignored } from "../../lib/train/data.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { generator } from "../../lib/random.ts";
import { assertSameGradients } from "../runtime/support.ts";
import { bertLoss } from "../reference/bert.ts";
import { assertDifferences } from "./support.ts";

/** Sizes that divide no tile, and everything that a BERT can have. */
const configuration: BertConfiguration = {
  vocabulary: 19,
  mask: 18,
  width: 12,
  blocks: 2,
  heads: 2,
  hidden: 10,
  positions: 9,
  types: 2,
  length: 7,
  dropout: 0.2,
};
const optimizer = sgd({ learningRate: 0.1 });

/** Sequences of several lengths, a quarter of whose tokens are asked for. */
function maskedBatch(samples: number): Batch {
  const { vocabulary, length, mask } = configuration;
  const random = generator("batch");
  const inputs = Uint32Array.from({ length: samples * length }, () => random.integer(vocabulary - 1));
  const lengths = Uint32Array.from({ length: samples }, () => 3 + random.integer(length - 2));
  const targets = inputs.map((token, i) =>
    i % length < lengths[Math.floor(i / length)] && i % 4 === 0 ? token : ignored
  );
  targets.forEach((target, i) => target === ignored || (inputs[i] = mask));
  return { samples, inputs, targets, lengths, seed: 12 };
}

let one: DeviceSet, two: DeviceSet;
before(async () => {
  one = await openDevices(1);
  two = await openDevices(2);
});
after(() => [one, two].forEach((set) => set.close()));

const batch = maskedBatch(4);
const whole = generate("naive", { devices: 1 });

async function run(pipeline: Pipeline, schedule: Schedule) {
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  return { loss, gradients: await pipeline.gradients() };
}

test("BERT's loss and gradients equal those of the model in float64, by finite differences", async () => {
  const pipeline = createPipeline(one, bert("tiny", configuration), { optimizer, seed: 5 });
  const parameters = await pipeline.parameters();
  const { loss, gradients } = await run(pipeline, whole);
  pipeline.close();
  const values = new Map([...parameters].map(([name, array]) => [name, Float64Array.from(array)]));
  const decoder = "head.decoder.weight", table = "embeddings.token.weight";
  assert.deepEqual(values.get(decoder), values.get(table), "tied weights start alike");
  const expected = bertLoss(configuration, values, batch);
  assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);

  values.set(decoder, values.get(table)!); // one parameter, so that a difference moves both
  assertDifferences(() => bertLoss(configuration, values, batch), values, gradients);
});

test("BERT with dropout, padding and tied weights has the same loss and gradients in every schedule", async () => {
  const single = createPipeline(one, bert("tiny", configuration), { optimizer });
  const expected = await run(single, whole);
  single.close();
  const pipeline = createPipeline(two, bert("tiny", configuration), { optimizer });
  for (const name of ["naive", "gpipe", "1f1b-1", "1f1b-2"]) {
    const plain = generate(name, { devices: 2 });
    for (const schedule of [plain, twoStage(plain), twoStage(plain, { policy: "end", width: 2 })]) {
      pipeline.clearGradients();
      const { loss, gradients } = await run(pipeline, schedule);
      const what = `${name}, ${schedule.policy ?? "without 2BP"}`;
      assert.ok(Math.abs(loss - expected.loss) <= 1e-5 * expected.loss, `${what}: ${loss}, not ${expected.loss}`);
      assertSameGradients(gradients, expected.gradients, 1e-5, what);
    }
  }
  pipeline.close();
});

test("the kernels that a GPU is given compute BERT's loss and gradients too", async () => {
  const set = await openDevices(1);
  const results = [];
  for (const software of [true, false]) {
    Object.assign(set.devices[0].gpu.info, { software }); // what kernels are chosen by
    const pipeline = createPipeline(set, bert("tiny", configuration), { optimizer });
    results.push(await run(pipeline, whole));
    pipeline.close();
  }
  set.close();
  const [expected, actual] = results;
  assert.ok(Math.abs(actual.loss - expected.loss) <= 1e-5 * expected.loss, `${actual.loss}, not ${expected.loss}`);
  assertSameGradients(actual.gradients, expected.gradients, 1e-5, "GPU kernels");
});

test("BERT learns a batch by heart, and its tied weights stay alike", async () => {
  const pipeline = createPipeline(two, bert("tiny", { ...configuration, dropout: 0 }), { optimizer });
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const losses: number[] = [];
  for (let step = 0; step < 30; step++) losses.push((await pipeline.step(schedule, batch)).loss);
  assert.ok(losses[29] < 0.8 * losses[0], `${losses}`);
  const parameters = await pipeline.parameters();
  assert.deepEqual(parameters.get("head.decoder.weight"), parameters.get("embeddings.token.weight"));
  pipeline.close();
});
