import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { linear } from "../../lib/layers/linear.ts";
import { countParameters, type Model } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { aligned, assertSameGradients, randomBatch, tinyModel } from "./support.ts";

let one: DeviceSet, two: DeviceSet;
before(async () => [one, two] = [await openDevices(1), await openDevices(2)]);
after(() => [one, two].forEach((set) => set.close()));

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
  await pipeline.step(generate("1f1b-1", { devices: 2 }), batch, { optimize: false });
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
      for (let step = 0; step < 3; step++) await pipeline.step(schedule, randomBatch(aligned, 4, step));
      const parameters = await pipeline.parameters();
      pipeline.close();
      return parameters;
    };
    const [together, apart] = [await train(one, 1), await train(two, 2)];
    assert.deepEqual(apart.get("tied_head.weight"), apart.get("embedding.weight"));
    assertSameGradients(apart, together, 1e-5, "parameters after three steps");
  });
}
