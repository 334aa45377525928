import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { generator } from "../../lib/random.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { llamaLoss } from "../reference/llama.ts";
import { randomBatch, tiny, tinyModel } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

test("a pipeline's loss and gradients equal those of the model in float64, by finite differences", async () => {
  const pipeline = createPipeline(set, tinyModel(), { optimizer: sgd({ learningRate: 0.1 }), seed: 5 });
  const batch = randomBatch(tiny, 4);
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const parameters = await pipeline.parameters();
  const gradients = await pipeline.gradients();
  const values = new Map([...parameters].map(([name, array]) => [name, Float64Array.from(array)]));
  const expected = llamaLoss(tiny, values, batch);
  assert.ok(Math.abs(loss - expected) < 1e-6 * expected, `loss ${loss} instead of ${expected}`);

  const random = generator("which elements");
  for (const [name, gradient] of gradients) {
    const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
    assert.ok(scale > 0, `the gradient of ${name} is zero`);
    for (let probe = 0; probe < 4; probe++) {
      const at = random.integer(gradient.length);
      const array = values.get(name)!;
      const value = array[at];
      const difference = (h: number) => {
        array[at] = value + h;
        const above = llamaLoss(tiny, values, batch);
        array[at] = value - h;
        const below = llamaLoss(tiny, values, batch);
        array[at] = value;
        return (above - below) / (2 * h);
      };
      const h = 1e-4;
      const expected = (4 * difference(h / 2) - difference(h)) / 3; // Richardson: error of fourth order
      assert.ok(
        Math.abs(gradient[at] - expected) < 1e-4 * scale + 1e-4 * Math.abs(expected),
        `gradient of ${name}[${at}] is ${gradient[at]}, finite differences give ${expected}`,
      );
    }
  }
  pipeline.close();
});
