import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { resnet } from "../../lib/models/resnet.ts";
import type { Model } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { loadWeights, saveWeights } from "../../lib/weights/checkpoint.ts";
import { referenceModel } from "../../lib/weights/families.ts";
import { modelFrom } from "../../lib/weights/model_from.ts";
import { toReference } from "../../lib/weights/reference.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";
import { type Fixture, readFixture } from "./fixture.ts";
import { logitsOf } from "./logits.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

/** Our model of each fixture; ResNet's configuration is stored nowhere. */
const models: Record<string, (fixture: Fixture) => Model> = {
  ...Object.fromEntries(
    ["llama", "llama_grouped", "llama3", "mistral", "qwen2", "bert", "mamba"].map((name) => [
      name,
      ({ folder, batch }: Fixture) => modelFrom(folder, { length: batch.inputs.length / batch.samples }),
    ]),
  ),
  resnet: ({ configuration }) => resnet("resnet", { block: "bottleneck", stem: "7x7", ...configuration }),
};

const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));

for (const [name, modelOf] of Object.entries(models)) {
  test(`${name} has PyTorch's loss, gradients and logits on two devices with 2BP`, async () => {
    const fixture = readFixture(name, { images: name === "resnet" });
    const model = modelOf(fixture);
    const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }) });
    loadWeights(pipeline, fixture.folder);
    const schedule = twoStage(generate("1f1b-1", { devices: 2, microbatches: fixture.microbatches }));
    const { loss } = await pipeline.step(schedule, fixture.batch, { optimize: false });
    const results = await pipeline.gradients();
    for (const [name, statistics] of await pipeline.state()) results.set(name, statistics);
    const parameters = await pipeline.parameters();
    pipeline.close();
    assert.ok(Math.abs(loss / fixture.loss - 1) < 1e-5, `the loss is ${loss}, PyTorch's ${fixture.loss}`);

    const logits = fixture.expected.get("logits");
    if (logits) {
      const ours = await logitsOf(model, set.devices[0], parameters, fixture.batch);
      assert.equal(ours.length, logits.length);
      const most = ours.reduce((most, value, i) => Math.max(most, Math.abs(value - logits[i])), 0);
      assert.ok(most < 1e-5, `logits are off by up to ${most}`);
    }

    const { references } = referenceModel(model);
    const expected = references.map((reference) => fixture.expected.get(reference.name)!);
    const largest = Math.max(...expected.map(norm));
    for (const [index, reference] of references.entries()) {
      const ours = toReference(reference, results.get(reference.parameter)!);
      const theirs = expected[index];
      assert.equal(ours.length, theirs.length);
      const size = norm(theirs);
      const difference = norm(ours.map((value, i) => value - theirs[i]));
      // Where the true gradient is zero (the bias of attention's keys) both have nothing but rounding to compare.
      if (size < 1e-10 * largest) {
        assert.ok(difference < 1e-6 * largest, `${reference.name} is ${difference}, not zero`);
      } else assert.ok(difference < 1e-4 * size, `${reference.name} is off by ${difference / size}`);
    }
  });
}

/** Names, shapes and values of the tensors in a file that are no counters. */
function tensorsOf(path: string) {
  const file = openTensorFile(path);
  const floats = [...file.tensors].filter(([, { dtype }]) => dtype === "F32");
  const tensors = floats.map(([name, { shape }]) => [name, shape, file.read(name)] as const);
  file.close();
  return tensors.sort(([a], [b]) => a < b ? -1 : 1);
}

test("what is loaded is saved again under the same names, in the same shapes, with the same values", async () => {
  const folder = mkdtempSync(join(tmpdir(), "twobp-fixtures-"));
  for (const [name, modelOf] of Object.entries(models)) {
    const fixture = readFixture(name, { images: name === "resnet" });
    const pipeline = createPipeline(set, modelOf(fixture), { optimizer: sgd({ learningRate: 0.1 }) });
    loadWeights(pipeline, fixture.folder);
    const saved = join(folder, `${name}.safetensors`);
    await saveWeights(pipeline, saved);
    pipeline.close();
    assert.deepEqual(tensorsOf(saved), tensorsOf(join(fixture.folder, "model.safetensors")), name);
  }
  rmSync(folder, { recursive: true });
});
