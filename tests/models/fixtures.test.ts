import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { bert } from "../../lib/models/bert.ts";
import { llama } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { resnet } from "../../lib/models/resnet.ts";
import type { Model } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { loadWeights } from "../../lib/weights/checkpoint.ts";
import { referenceModel } from "../../lib/weights/families.ts";
import { toReference } from "../../lib/weights/reference.ts";
import { type Fixture, readFixture } from "./fixture.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const lengthOf = ({ batch }: Fixture) => batch.inputs.length / batch.samples;

const llamaOf = (fixture: Fixture) => {
  const { configuration: c } = fixture;
  return llama("llama", {
    vocabulary: c.vocab_size,
    width: c.hidden_size,
    blocks: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_key_value_heads,
    hidden: c.intermediate_size,
    length: lengthOf(fixture),
    epsilon: c.rms_norm_eps,
  });
};

/** Our model for each fixture. */
const models: Record<string, (fixture: Fixture) => Model> = {
  llama: llamaOf,
  llama_grouped: llamaOf,
  bert(fixture) {
    const { configuration: c } = fixture;
    return bert("bert", {
      vocabulary: c.vocab_size,
      mask: 0,
      width: c.hidden_size,
      blocks: c.num_hidden_layers,
      heads: c.num_attention_heads,
      hidden: c.intermediate_size,
      positions: c.max_position_embeddings,
      types: 2,
      length: lengthOf(fixture),
      dropout: 0,
      epsilon: c.layer_norm_eps,
    });
  },
  mamba(fixture) {
    const { configuration: c } = fixture;
    return mamba("mamba", {
      vocabulary: c.vocab_size,
      width: c.hidden_size,
      blocks: c.num_hidden_layers,
      state: c.state_size,
      expand: c.expand,
      rank: c.time_step_rank,
      length: lengthOf(fixture),
      epsilon: c.layer_norm_epsilon,
    });
  },
  resnet({ configuration: { width, size, classes }, blocks }) {
    return resnet("resnet", { block: "bottleneck", blocks, width, stem: "7x7", size, classes });
  },
};

const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));

for (const [name, modelOf] of Object.entries(models)) {
  test(`${name} has PyTorch's loss and PyTorch's gradients on two devices with 2BP`, async () => {
    const fixture = readFixture(name, { images: name === "resnet" });
    const model = modelOf(fixture);
    const pipeline = createPipeline(set, model, { optimizer: sgd({ learningRate: 0.1 }) });
    loadWeights(pipeline, fixture.weights);
    const schedule = twoStage(generate("1f1b-1", { devices: 2, microbatches: fixture.microbatches }));
    const { loss } = await pipeline.step(schedule, fixture.batch, { optimize: false });
    const results = await pipeline.gradients();
    for (const [name, statistics] of await pipeline.state()) results.set(name, statistics);
    pipeline.close();
    assert.ok(Math.abs(loss / fixture.loss - 1) < 1e-5, `the loss is ${loss}, PyTorch's ${fixture.loss}`);

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
