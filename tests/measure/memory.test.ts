import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { problemsOf } from "../../lib/measure/calibrate.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { countParameters } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { PolicyText } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { aligned, randomBatch, tinyModel } from "../runtime/support.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

test("predicted peaks equal those of a real step, by device and category, for every schedule and policy", async () => {
  const optimizer = adamw();
  const { software, subgroupSize } = set.devices[0].gpu.info;
  for (const name of ["naive", "gpipe", "1f1b-1", "1f1b-2"]) {
    const base = generate(name, { devices: 2 });
    const policies: PolicyText[] = ["fill", "end", "mid", "every:2"];
    for (const schedule of [base, ...policies.map((policy) => twoStage(base, { policy, width: 2 }))]) {
      const predicted = await predictMemory(tinyModel(aligned), schedule, 2, { optimizer, software, subgroupSize });
      const pipeline = createPipeline(set, tinyModel(aligned), { optimizer });
      await pipeline.step(schedule, randomBatch(aligned, 2 * sizesOf(schedule).microbatches)); // staging buffers are made
      const { peaks } = await pipeline.step(schedule, randomBatch(aligned, 2 * sizesOf(schedule).microbatches));
      pipeline.close();
      for (const [rank, { total, categories }] of peaks.entries()) {
        const what = `${name} ${schedule.policy ?? ""} rank ${rank}`;
        for (const [category, bytes] of Object.entries(categories)) {
          const guess = predicted[rank].categories[category as "activations"];
          // When a staging buffer comes back depends on when the other rank gets to it: the prediction is the most.
          const near = category === "transfer"
            ? bytes <= guess && 2 * bytes >= guess
            : Math.abs(guess - bytes) <= 0.02 * bytes;
          assert.ok(near, `${what}: ${category} ${guess} predicted, ${bytes} measured`);
        }
        const difference = Math.abs(predicted[rank].total - total);
        assert.ok(
          difference <= 0.02 * total + predicted[rank].categories.transfer,
          `${what}: ${predicted[rank].total}, ${total}`,
        );
      }
    }
  }
});

test("a prediction knows what calibration chose: attention keeps what its way needs", async () => {
  const { software, subgroupSize } = set.devices[0].gpu.info, samples = 2;
  const problems = await problemsOf(tinyModel(aligned), samples, set.devices[0].gpu);
  const { operation, problem } = problems.find(({ operation }) => operation.name === "attention")!;
  const options = { optimizer: adamw(), software, subgroupSize };
  const naive = generate("naive", { devices: 1 });
  const activations = async (way: string) => {
    const choices = { attention: { [operation.classOf(problem)]: way } };
    const [{ categories }] = await predictMemory(tinyModel(aligned), naive, samples, { ...options, choices });
    return categories.activations;
  };
  const { heads, length, blocks } = aligned;
  const logarithms = 4 * samples * heads * length, probabilities = logarithms * length; // multiples of 256 bytes
  assert.equal(
    await activations("composed") - await activations("attention_workgroup"),
    blocks * (probabilities - logarithms),
  );
});

test("a model's parameters, gradients and moments are what a prediction holds of them", async () => {
  const model = tinyModel(aligned);
  const count = countParameters(model);
  const peaks = await predictMemory(model, generate("naive", { devices: 1 }), 1, { optimizer: adamw() });
  // Every tensor is padded to 256 bytes; the gradient of the loss and the optimizer's scalars are one each.
  assert.ok(peaks[0].categories.parameters >= 4 * count && peaks[0].categories.parameters < 4.5 * count);
  assert.equal(peaks[0].categories.gradients, peaks[0].categories.parameters + 256);
  assert.equal(peaks[0].categories.optimizer, 2 * peaks[0].categories.parameters + 256);
});
