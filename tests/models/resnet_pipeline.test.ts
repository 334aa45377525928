import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { assertSameGradients } from "../runtime/support.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";

let one: DeviceSet, two: DeviceSet;
before(async () => {
  one = await openDevices(1);
  two = await openDevices(2);
});
after(() => [one, two].forEach((set) => set.close()));

const microbatches = 4;
const configuration = { block: "bottleneck", blocks: [2, 1], width: 16, stem: "3x3", size: 12, classes: 5 } as const;

/** Loss, gradients and running statistics after one step without an update. */
async function run(set: DeviceSet, schedule: Schedule) {
  const model = resnet("small", configuration);
  const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }), seed: 3 });
  const batch = syntheticImages({ size: 12, classes: 5, seed: 1 }).next(3 * microbatches);
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const gradients = await pipeline.gradients();
  const running = await pipeline.state();
  pipeline.close();
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), set.devices.map(() => 0));
  return { loss, gradients, running };
}

// BatchNorm looks at micro-batches, so what is compared is cut alike: the same micro-batches, one after the other on one device.
test("a ResNet cut over two devices has the loss, gradients and running statistics of one device, with 2BP and without", async () => {
  const expected = await run(one, generate("gpipe", { devices: 1, microbatches }));
  for (const name of ["gpipe", "1f1b", "zb-h1"]) {
    const base = generate(name, { devices: 2, microbatches });
    for (
      const schedule of sizesOf(base).split
        ? [base]
        : [base, twoStage(base), twoStage(base, { policy: "end", width: 3 })]
    ) {
      const actual = await run(two, schedule);
      assert.ok(Math.abs(actual.loss - expected.loss) <= 1e-5 * expected.loss, `${name}: loss ${actual.loss}`);
      assertSameGradients(actual.gradients, expected.gradients, 1e-5, name);
      assertSameGradients(actual.running, expected.running, 1e-6, `${name}, running statistics`);
    }
  }
});
