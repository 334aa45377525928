import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import type { Model } from "../../lib/models/model.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { type Batch, type BatchSource, maskedTextSource, textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const text = new TextEncoder().encode(
  "She sells sea shells by the sea shore; the shells she sells are sea shells. ".repeat(40),
);

function sourceFor({ task, configuration: { length, mask, size, classes } }: Model): BatchSource<Batch> {
  if (task === "image") return syntheticImages({ size, classes, seed: 1 });
  return task === "next-token"
    ? textSource(text, { length, seed: 1 })
    : maskedTextSource(text, { length, seed: 1, mask });
}

// How far the losses may part, relative. Measured: 1.3e-4 for the language models; for ResNet 4e-3, whose normalisation
// over few samples makes much of little.
const tolerances = { "llama-tiny": 5e-4, "bert-tiny": 5e-4, "mamba-tiny": 5e-4, "resnet-tiny": 2e-2 };

for (const [name, tolerance] of Object.entries(tolerances)) {
  test(`${name} in mixed precision follows the loss of f32 over some steps, in little more than half the activations`, async (t) => {
    if (!set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
    const train = async (precision: "f32" | "mixed") => {
      const model = createModel(name);
      const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 1e-3 }), precision, seed: 2 });
      const source = sourceFor(model), schedule = twoStage(generate("1f1b-1", { devices: 2 }));
      const losses: number[] = [];
      let activations = 0, skipped = 0;
      for (let step = 0; step < 5; step++) {
        const result = await pipeline.step(schedule, source.next(2 * sizesOf(schedule).microbatches));
        losses.push(result.loss);
        skipped += Number(result.skipped ?? false);
        activations = Math.max(...result.peaks.map(({ categories }) => categories.activations));
      }
      pipeline.close();
      return { losses, activations, skipped };
    };
    const [full, mixed] = [await train("f32"), await train("mixed")];
    assert.equal(mixed.skipped, 0);
    for (const [step, loss] of full.losses.entries()) {
      const off = Math.abs(mixed.losses[step] - loss) / loss;
      assert.ok(off < tolerance, `step ${step}: ${mixed.losses[step]}, ${loss} in f32, off by ${off}`);
    }
    assert.ok(mixed.activations < 0.65 * full.activations, `${mixed.activations}, ${full.activations} in f32`);
  });
}

// How far gradients may be off is the model's matter: of a fresh ResNet, whose units switch on and off, an input that is
// off by 5e-4 already changes some by 15 %. So they are held against what rounding the weights to f16 does, all else f32.
for (const name of Object.keys(tolerances)) {
  test(`gradients of ${name} in mixed precision are off by no more than a few times what f16 weights alone make of them`, async (t) => {
    if (!set.devices.every(({ gpu }) => gpu.info.f16)) return t.skip("this device has no f16");
    const gradients = async (precision: "f32" | "mixed", rounded: boolean) => {
      const model = createModel(name);
      const pipeline = createPipeline(set, model, { optimizer: adamw(), precision, seed: 2 });
      const values = [...await pipeline.parameters()];
      if (rounded) pipeline.setParameters(new Map(values.map(([key, each]) => [key, fromHalf(toHalf(each))])));
      const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
      await pipeline.step(schedule, sourceFor(model).next(2 * sizesOf(schedule).microbatches), { optimize: false });
      const all = [...(await pipeline.gradients()).values()].flatMap((each) => [...each]);
      pipeline.close();
      return all;
    };
    const [exact, rounded, mixed] = [
      await gradients("f32", false),
      await gradients("f32", true),
      await gradients("mixed", false),
    ];
    const size = Math.sqrt(exact.reduce((sum, value) => sum + value ** 2, 0));
    const off = (others: number[]) =>
      Math.sqrt(exact.reduce((sum, value, i) => sum + (others[i] - value) ** 2, 0)) / size;
    assert.ok(off(rounded) > 1e-5, `${off(rounded)}`);
    assert.ok(off(mixed) < 4 * off(rounded), `off by ${off(mixed)}, with f16 weights alone by ${off(rounded)}`);
  });
}
