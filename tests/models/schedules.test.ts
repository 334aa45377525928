import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { assertSameGradients } from "../runtime/support.ts";
import { everySplit } from "../schedules/support.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const microbatches = 4;

for (const [number, name] of ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"].entries()) {
  test(`${name} has the same loss and gradients for every schedule and a quarter of the policies and widths`, async () => {
    const model = createModel(name);
    const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }), seed: 2 });
    const batch = await sourceFor(model, undefined, 3).source.next(microbatches);
    const run = async (schedule: ReturnType<typeof generate>) => {
      pipeline.clearGradients();
      const { loss } = await pipeline.step(schedule, batch, { optimize: false });
      return { loss, gradients: await pipeline.gradients() };
    };
    // The same cut into micro-batches for all, since batch normalisation looks at one micro-batch at a time.
    const expected = await run(generate("naive", { devices: 2, microbatches }));
    for (
      const base of ["gpipe", "1f1b-1", "1f1b-2", "naive"].map((each) => generate(each, { devices: 2, microbatches }))
    ) {
      // Each order by one model, each model in orders of all policies and widths: tests/runtime/equivalence.test.ts has them all, on
      // a smaller model.
      const splits = everySplit(base, [1, 2, 4]).filter((_, index) => index % 4 === number);
      for (const schedule of [base, ...splits]) {
        const what = `${schedule.name}, ${schedule.policy ?? "without 2BP"}, width ${sizesOf(schedule).width}`;
        const { loss, gradients } = await run(schedule);
        assert.ok(
          Math.abs(loss - expected.loss) <= 1e-6 * expected.loss,
          `${what}: loss ${loss}, not ${expected.loss}`,
        );
        assertSameGradients(gradients, expected.gradients, 1e-5, what);
      }
    }
    pipeline.close();
  });
}
