/** Predictions of memory are of the driver that computes: each chooses other kernels, which keep and need other things. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { DeviceKind } from "../../lib/gpu/kind.ts";
import { predictMemory, reportMemory } from "../../lib/measure/memory.ts";
import { llama } from "../../lib/models/llama.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { plan } from "../../lib/planning/plan.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const optimizer = adamw();
/** Long enough that lavapipe keeps no scores and SwiftShader does; images whose patches only SwiftShader lays out. */
const models: Readonly<Record<string, () => Model>> = {
  attention: () => llama("long", { vocabulary: 32, width: 32, blocks: 2, heads: 1, hidden: 32, length: 128 }),
  convolution: () => resnet("images", { block: "basic", blocks: [1], width: 32, stem: "3x3", size: 16, classes: 4 }),
};
const drivers: readonly (readonly ["system" | "bundled", DeviceKind, DeviceKind])[] = [
  ["system", "lavapipe", "swiftshader"],
  ["bundled", "swiftshader", "lavapipe"],
];

for (const [driver, own, other] of drivers) {
  test(`on the ${driver} driver a step needs what was predicted for ${own}, and not what was for ${other}`, async (t) => {
    let set: DeviceSet;
    try {
      set = await openDevices(2, { driver, virtual: true }); // which compiles each kernel once
    } catch (error) {
      return t.skip(`${error}`);
    }
    try {
      const { kind, software, subgroupSize } = set.devices[0].gpu.info;
      assert.equal(kind, own);
      for (const [name, model] of Object.entries(models)) {
        const schedule = twoStage(generate("1f1b-1", { devices: 2 }), { policy: "end" });
        const { rows: [{ devices }] } = await reportMemory(model, {
          schedules: [schedule],
          samples: 1,
          optimizer,
          set,
        });
        const fullest = (values: readonly number[]) => Math.max(...values);
        for (const { rank, predictedPeak, measuredPeak = 0, predicted } of devices) {
          assert.ok(
            Math.abs(predictedPeak - measuredPeak) <= 0.02 * measuredPeak + predicted.transfer,
            `${name}, rank ${rank}: ${predictedPeak} predicted, ${measuredPeak} measured`,
          );
        }
        const totals = async (of: Parameters<typeof predictMemory>[3]) =>
          (await predictMemory(model(), schedule, 1, of)).map(({ total }) => total);
        const here = devices.map(({ predictedPeak }) => predictedPeak);
        // The lanes say it where the kind is left out.
        assert.deepEqual(await totals({ optimizer, software, subgroupSize }), here);
        const there = await totals({ optimizer, kind: other, subgroupSize });
        assert.ok(Math.abs(fullest(there) / fullest(here) - 1) > 0.05, `${name}: ${there} and ${here}`);
      }
    } finally {
      set.close();
    }
  });
}

test("a plan is for the kind of device that it is told, as a prediction is, and a kind that there is not is refused", async () => {
  const model = models.attention();
  const peaks = async (kind: DeviceKind) => {
    const on = { kind, subgroupSize: 4 }, budget = 2 ** 30;
    const { schedule, parts, recompute, sums, peak } = await plan(model, {
      devices: 2,
      microbatches: 2,
      budget,
      ...on,
    });
    const predicted = await predictMemory(model, schedule, 1, { optimizer, parts, recompute, sums, ...on });
    assert.deepEqual(peak, predicted.map(({ needed }) => needed));
    return peak;
  };
  assert.ok(Math.max(...await peaks("swiftshader")) > 1.05 * Math.max(...await peaks("lavapipe")));
  const kind = "swift" as DeviceKind,
    refused = { name: "UserError", message: /kind.* must be one of "gpu", "lavapipe", "swiftshader"/ };
  await assert.rejects(plan(model, { devices: 2, microbatches: 2, budget: 2 ** 30, kind }), refused);
  await assert.rejects(predictMemory(model, generate("naive", { devices: 2 }), 1, { optimizer, kind }), refused);
});
