import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { llama, type LlamaConfiguration } from "../../lib/models/llama.ts";
import { generator } from "../../lib/random.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { assertSameGradients, randomBatch, tiny } from "../runtime/support.ts";
import { everySplit } from "../schedules/support.ts";
import { llamaLoss } from "../reference/llama.ts";
import { assertDifferences } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const optimizer = sgd({ learningRate: 0.1 });

// Of four pairs one keeps its speed in a sequence of 7, one has a quarter of it, and two are in between.
const ropeScaling = { factor: 4, lowFrequencyFactor: 0.01, highFrequencyFactor: 0.9, originalLength: 6 };

const variants: Record<string, Partial<LlamaConfiguration>> = {
  "grouped-query attention": { width: 16, heads: 4, kvHeads: 2 },
  "dropout": { dropout: 0.2 },
  "heads that are together wider than the model": { headSize: 8 },
  "heads that are together narrower than the model": { heads: 4, kvHeads: 2, headSize: 2 },
  "biases of queries, keys and values": { width: 16, heads: 4, kvHeads: 2, qkvBias: true },
  "Llama 3's rope scaling": { headSize: 8, ropeTheta: 500, ropeScaling },
};

for (const [what, fields] of Object.entries(variants)) {
  test(`a LLaMa with ${what} has the loss and gradients of the model in float64`, async () => {
    const configuration = { ...tiny, ...fields };
    const pipeline = createPipeline(set, llama(what, configuration), { optimizer, seed: 5 });
    const batch = { ...randomBatch(configuration, 2), seed: 12 };
    const parameters = await pipeline.parameters();
    const random = generator(3);
    for (const [name, values] of parameters) {
      if (name.endsWith(".bias")) values.forEach((_, i) => values[i] = random.normal());
    }
    pipeline.setParameters(parameters);
    const { loss } = await pipeline.step(twoStage(generate("1f1b-1", { devices: 2 })), batch, { optimize: false });
    const gradients = await pipeline.gradients();
    pipeline.close();
    const values = new Map([...parameters].map(([name, array]) => [name, Float64Array.from(array)]));
    const expected = llamaLoss(configuration, values, batch);
    assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);
    assertDifferences(() => llamaLoss(configuration, values, batch), values, gradients);
  });
}

test("a LLaMa with dropout has the same loss and gradients in every schedule, whatever it recomputes", async () => {
  const configuration = { ...tiny, dropout: 0.2 };
  const batch = { ...randomBatch(configuration, 4), seed: 12 };
  const results = [];
  for (const recompute of ["none", "both"] as const) {
    const pipeline = createPipeline(set, llama("tiny", configuration), { optimizer, recompute });
    const bases = ["naive", "1f1b-2"].map((name) => generate(name, { devices: 2 }));
    for (const schedule of bases.flatMap((base) => [base, ...everySplit(base, [1, 2, 4])])) {
      const { loss } = await pipeline.step(schedule, batch, { optimize: false });
      results.push({
        loss,
        gradients: await pipeline.gradients(),
        what: `${schedule.name}, ${schedule.policy}, ${recompute}`,
      });
    }
    pipeline.close();
  }
  const [expected] = results;
  for (const { loss, gradients, what } of results) {
    assert.ok(Math.abs(loss - expected.loss) <= 1e-5 * expected.loss, `${what}: ${loss}, not ${expected.loss}`);
    assertSameGradients(gradients, expected.gradients, 1e-5, what);
  }
});

test("a LLaMa whose dropout is 0 is the one without, layer by layer and bit by bit; with it the seed of a batch counts", async () => {
  const run = async (fields: { dropout?: number }, seed: number) => {
    const pipeline = createPipeline(set, llama("tiny", { ...tiny, ...fields }), { optimizer, seed: 5 });
    const { loss } = await pipeline.step(generate("gpipe", { devices: 2 }), { ...randomBatch(tiny, 2), seed });
    const parameters = await pipeline.parameters();
    pipeline.close();
    return { loss, parameters };
  };
  assert.equal(
    llama("tiny", { ...tiny, dropout: 0 }).layers.length,
    llama("tiny", { ...tiny, dropout: 0.5 }).layers.length,
  );
  assert.deepEqual(await run({ dropout: 0 }, 1), await run({}, 2));
  const [one, other] = [await run({ dropout: 0.5 }, 1), await run({ dropout: 0.5 }, 2)];
  assert.notEqual(one.loss, other.loss);
  assert.deepEqual(one, await run({ dropout: 0.5 }, 1));
});
