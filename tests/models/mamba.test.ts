import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { mamba, type MambaConfiguration, mambaConfigurations } from "../../lib/models/mamba.ts";
import { countParameters } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { assertSameGradients, randomBatch } from "../runtime/support.ts";

let one: DeviceSet, two: DeviceSet;
before(async () => [one, two] = [await openDevices(1), await openDevices(2)]);
after(() => [one, two].forEach((set) => set.close()));

const tiny: MambaConfiguration = { vocabulary: 19, width: 6, blocks: 3, state: 4, expand: 2, rank: 3, length: 21 };

test("parameter counts are those of state-spaces/mamba-130m, -370m, -790m and -1.4b", () => {
  const counts = { "130m": 129_135_360, "370m": 371_516_416, "790m": 793_204_224, "1.4b": 1_372_178_432 };
  for (const [size, count] of Object.entries(counts)) {
    const name = `mamba-${size}`;
    assert.equal(countParameters(mamba(name, mambaConfigurations[name])), count, name);
  }
});

test("a Mamba model starts as the reference implementation does", async () => {
  const configuration = { ...tiny, width: 64, state: 16, rank: 4, vocabulary: 300 };
  const pipeline = createPipeline(one, mamba("m", configuration), { optimizer: sgd({ learningRate: 0.1 }), seed: 3 });
  const values = await pipeline.parameters();
  const of = (name: string) => values.get(`blocks.1.mixer.${name}`)!;
  const within = (name: string, bound: number) => {
    const largest = of(name).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assert.ok(largest <= bound && largest > 0.95 * bound, `${name} reaches ${largest} of ${bound}`);
  };
  within("in_proj.weight", 64 ** -0.5);
  within("conv1d.weight", 0.5);
  within("conv1d.bias", 0.5);
  within("x_proj.weight", 128 ** -0.5);
  within("dt_proj.weight", 4 ** -0.5);
  within("out_proj.weight", 128 ** -0.5 / Math.sqrt(3));
  of("A_log").forEach((value, i) => assert.ok(Math.abs(value - Math.log(1 + i % 16)) < 1e-6));
  assert.ok(of("D").every((value) => value === 1));
  const steps = of("dt_proj.bias").map((value) => Math.log1p(Math.exp(value))).sort();
  assert.ok(steps[0] > 0.000999 && steps[0] < 0.0012 && steps[127] < 0.1001 && steps[127] > 0.08, `${steps}`);
  assert.ok(Math.abs(Math.log10(steps[64]) + 2) < 0.2, `half the steps are below ${steps[64]}`);
  pipeline.close();
});

for (const name of ["naive", "1f1b-1", "1f1b-2"]) {
  test(`Mamba on two devices under ${name} with 2BP has the gradients of one pass over the whole batch`, async () => {
    const batch = randomBatch({ ...tiny, heads: 1, hidden: 1 }, 4);
    const run = async (set: DeviceSet, schedule: ReturnType<typeof generate>) => {
      const pipeline = createPipeline(set, mamba("m", tiny), { optimizer: sgd({ learningRate: 0.1 }), seed: 3 });
      const { loss } = await pipeline.step(schedule, batch, { optimize: false });
      const gradients = await pipeline.gradients();
      pipeline.close();
      return { loss, gradients };
    };
    const whole = await run(one, generate("naive", { devices: 1 }));
    const split = await run(two, twoStage(generate(name, { devices: 2 })));
    assert.ok(Math.abs(split.loss - whole.loss) < 1e-5 * whole.loss, `${split.loss} instead of ${whole.loss}`);
    assertSameGradients(split.gradients, whole.gradients, 1e-5, name);
  });
}

test("a Mamba model learns to repeat a short text", async () => {
  const pipeline = createPipeline(two, mamba("m", tiny), { optimizer: adamw({ learningRate: 0.02 }), seed: 3 });
  const ids = Uint32Array.from({ length: 4 * 21 + 1 }, (_, i) => i % 5);
  const batch = { samples: 4, inputs: ids.subarray(0, -1), targets: ids.subarray(1) };
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const losses: number[] = [];
  for (let step = 0; step < 60; step++) losses.push((await pipeline.step(schedule, batch)).loss);
  pipeline.close();
  assert.ok(losses[0] > 2.5 && losses[59] < 0.1, `losses ${losses}`);
});
