import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny } from "../runtime/support.ts";
import { llamaLoss } from "../reference/llama.ts";
import { assertDifferences } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

test("a LLaMa with grouped-query attention has the loss and gradients of the model in float64", async () => {
  const configuration = { ...tiny, width: 16, heads: 4, kvHeads: 2 };
  const optimizer = sgd({ learningRate: 0.1 });
  const pipeline = createPipeline(set, llama("grouped", configuration), { optimizer, seed: 5 });
  const batch = randomBatch(configuration, 2);
  const parameters = await pipeline.parameters();
  const { loss } = await pipeline.step(twoStage(generate("1f1b-1", { devices: 2 })), batch, { optimize: false });
  const gradients = await pipeline.gradients();
  pipeline.close();
  const values = new Map([...parameters].map(([name, array]) => [name, Float64Array.from(array)]));
  const expected = llamaLoss(configuration, values, batch);
  assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);
  assertDifferences(() => llamaLoss(configuration, values, batch), values, gradients);
});
