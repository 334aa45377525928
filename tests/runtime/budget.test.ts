import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { actionsOf, highest } from "../../lib/gpu/ledger_timeline.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { formatAction } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { empty, release } from "../../lib/tensor.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { aligned, randomBatch, tinyModel } from "./support.ts";

const optimizer = adamw();
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const inUse = () => set.devices.map(({ ledger }) => ledger.total());
const schedule = twoStage(generate("1f1b-2", { devices: 2 }), { policy: "end" });

test("a step runs within the budget that is predicted for it; less fails with rank, action and bytes, and a smaller step works", async () => {
  set.devices.forEach(({ pool }) => pool.trim());
  const free = createPipeline(set, tinyModel(aligned), { optimizer });
  const { peaks } = await free.step(schedule, randomBatch(aligned, 8));
  free.close();
  set.devices.forEach(({ pool }) => pool.trim());
  const start = inUse();
  const { software, subgroupSize } = set.devices[0].gpu.info;
  const predicted = await predictMemory(tinyModel(aligned), schedule, 2, { optimizer, software, subgroupSize });
  const budget = Math.max(...predicted.map(({ needed }) => needed));
  const fits = createPipeline(set, tinyModel(aligned), { optimizer, budget });
  const { loss } = await fits.step(schedule, randomBatch(aligned, 4));
  for (let step = 0; step < 3; step++) {
    const { peaks } = await fits.step(schedule, randomBatch(aligned, 8)); // other sizes: what the first step left is trimmed
    assert.ok(peaks.every(({ needed, reserved }) => needed <= budget && reserved <= budget));
  }
  fits.close();

  const least = Math.max(...peaks.map(({ total }) => total));
  const tight = createPipeline(set, tinyModel(aligned), { optimizer, budget: least - 40_000 });
  const before = inUse();
  await assert.rejects(
    tight.step(schedule, randomBatch(aligned, 8)),
    /^RankError: Rank \d failed at \d[FIW]\d: Rank \d \(.*\): \d+ bytes of \w+ exceed the budget of \d+: \d+ are in use, \d+ are held by .*, \d+ are free$/,
  );
  assert.deepEqual(inUse(), before);
  assert.equal((await tight.step(schedule, randomBatch(aligned, 4))).loss, loss);
  tight.close();
  assert.deepEqual(inUse(), start);
});

test("a budget that the parameters alone exceed is refused, and leaves nothing behind", async () => {
  set.devices.forEach(({ pool }) => pool.trim());
  const before = inUse();
  assert.throws(
    () => createPipeline(set, tinyModel(aligned), { optimizer, budget: 5000 }),
    {
      name: "UserError",
      message: /^The model does not fit: .* bytes of (parameters|gradients|optimizer) exceed the budget of 5000/,
    },
  );
  assert.deepEqual(inUse(), before);
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer });
  await pipeline.step(schedule, randomBatch(aligned, 4));
  pipeline.close();
  assert.deepEqual(inUse(), before);
});

test("a buffer beyond the device's limit fails with rank, action and bytes, and the next step works", async () => {
  const model = tinyModel(aligned);
  const parts = partition(model, 2);
  let isLarge = false;
  const large: Layer = {
    ...parts[1][0],
    forward(y, x, saved) {
      if (isLarge) release(empty(x.device, [2 ** 34], "workspace"));
      parts[1][0].forward(y, x, saved);
    },
  };
  const pipeline = createPipeline(set, model, { optimizer, parts: [parts[0], [large, ...parts[1].slice(1)]] });
  const batch = randomBatch(aligned, 4);
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const before = inUse();
  isLarge = true;
  await assert.rejects(
    pipeline.step(schedule, batch),
    /^RankError: Rank 1 failed at 1F0: Rank 1 \(.*\): 68719476736 bytes of workspace asked for in one buffer, where this device allows \d+; a smaller micro-batch or model needs less$/,
  );
  assert.deepEqual(inUse(), before);
  isLarge = false;
  assert.equal((await pipeline.step(schedule, batch, { optimize: false })).loss, loss);
  pipeline.close();
});

test("a buffer that the driver refuses, which it says later, fails the step with the rank named, and the next step works", async () => {
  const model = tinyModel(aligned);
  const parts = partition(model, 2);
  let isRefused = false;
  const refused: Layer = {
    ...parts[1][0],
    forward(y, x, saved) {
      if (isRefused) x.device.gpu.device.createBuffer({ size: 2 ** 40, usage: GPUBufferUsage.STORAGE });
      parts[1][0].forward(y, x, saved);
    },
  };
  const pipeline = createPipeline(set, model, { optimizer, parts: [parts[0], [refused, ...parts[1].slice(1)]] });
  const batch = randomBatch(aligned, 4);
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  const before = inUse();
  isRefused = true;
  await assert.rejects(
    pipeline.step(schedule, batch),
    /^RankError: Rank 1 failed at (\d[FIW]\d|optimizer): Rank 1 \(.*\): Validation error: Buffer size \(1099511627776\)/,
  );
  assert.deepEqual(inUse(), before);
  isRefused = false;
  assert.equal((await pipeline.step(schedule, batch, { optimize: false })).loss, loss);
  pipeline.close();
});

test("a timeline has every action of each rank, its peak is the step's, and it ends where it started", async () => {
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer });
  const { timeline, peaks } = await pipeline.step(schedule, randomBatch(aligned, 4), { timeline: true });
  for (const [rank, points] of timeline!.entries()) {
    const actions = actionsOf(points);
    const named = actions.map(({ action }) => action);
    assert.deepEqual(named, ["start", ...schedule.actions[rank].map(formatAction), "optimizer"]);
    assert.equal(highest(points).total, peaks[rank].total);
    assert.equal(highest(points, "derivatives").categories.derivatives, peaks[rank].categories.derivatives);
    assert.equal(points[points.length - 1].categories.activations, 0);
    for (const { total, categories } of points) {
      assert.equal(total, Object.values(categories).reduce((sum, bytes) => sum + bytes, 0));
    }
    assert.ok(peaks[rank].reserved >= peaks[rank].total);
    const [first] = actions.filter(({ action }) => action === formatAction(schedule.actions[rank][0]));
    assert.ok(first.peak.total >= first.after.total && first.after.total > first.before.total);
  }
  assert.equal((await pipeline.step(schedule, randomBatch(aligned, 4))).timeline, undefined);
  pipeline.close();
});

test("a budget holds to the end of a step, although another pipeline on the same devices is closed meanwhile", async () => {
  const model = tinyModel(aligned);
  for (const isClosed of [false, true]) {
    const [before] = inUse();
    const other = createPipeline(set, model, { optimizer });
    const held = inUse()[0] - before;
    const free = createPipeline(set, model, { optimizer });
    const { peaks } = await free.step(schedule, randomBatch(aligned, 32));
    free.close();
    const budget = peaks[0].total - held - 20_000; // too little without the other's parameters, too
    const tight = createPipeline(set, model, { optimizer, budget });
    const step = tight.step(schedule, randomBatch(aligned, 32));
    if (isClosed) other.close();
    await assert.rejects(step, /bytes of \w+ exceed the budget of/);
    tight.close();
    other.close();
  }
});
