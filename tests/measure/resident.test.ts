import assert from "node:assert/strict";
import process from "node:process";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { collectGarbage } from "../../lib/gpu/garbage.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { empty, release } from "../../lib/tensor.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { aligned, randomBatch, tinyModel } from "../runtime/support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

/** Resident bytes of the process, in MB, once nothing is left to free. */
async function residentMB(): Promise<number> {
  for (let round = 0; round < 3; round++) {
    collectGarbage();
    await Promise.all(set.devices.map((device) => device.idle()));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return process.memoryUsage().rss / 1e6;
}

test("a steady step takes no more buffers, bytes or resident memory however often it is repeated", async () => {
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer: adamw() });
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const batch = randomBatch(aligned, 2);
  const repeat = async (count: number) => {
    for (let step = 0; step < count; step++) await pipeline.step(schedule, batch);
  };
  const account = () => set.devices.map(({ ledger, pool }) => [ledger.total(), ledger.reserved(), pool.slack()]);
  await repeat(60); // kernels, staging buffers and the engine's compiled code are made
  const [before, resident] = [account(), await residentMB()];
  await repeat(120);
  assert.deepEqual(account(), before);
  const growth = await residentMB() - resident;
  assert.ok(growth < 6, `resident memory grew by ${growth} MB in 120 steps`); // 0.05 MB a step
  pipeline.close();
});

test("on a software driver the process's resident memory rises with the ledger, and falls when the pool is trimmed", async () => {
  const [device] = set.devices;
  if (!device.gpu.info.software) return; // a GPU's memory is not the process's
  device.pool.trim();
  const ones = new Float32Array(12_500_000).fill(1); // one for all, and there before: when it goes is up to the collector
  const before = await residentMB();
  const tensors = Array.from({ length: 4 }, () => empty(device, [ones.length], "activations"));
  for (const tensor of tensors) device.write(tensor, ones);
  const asked = device.ledger.live.activations / 1e6;
  assert.ok(asked >= 200);
  const risen = await residentMB() - before;
  assert.ok(Math.abs(risen / asked - 1) < 0.1, `${asked} MB written, resident memory rose by ${risen} MB`);
  release(...tensors);
  assert.ok(await residentMB() - before > 0.9 * asked, "the pool keeps free buffers");
  device.pool.trim();
  assert.equal(device.pool.slack(), 0);
  const probe = empty(device, [64], "workspace");
  for (let i = 0; i < 3; i++) await device.read(probe); // the driver frees what was destroyed at the submissions that follow
  release(probe);
  const left = await residentMB() - before;
  assert.ok(left < 0.1 * asked, `${left} MB left of ${asked}`);
  assert.equal(ones[0], 1); // it is still there
});
