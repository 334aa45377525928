import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { linear } from "../../lib/layers/linear.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import type { Model } from "../../lib/models/model.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { RecomputeText } from "../../lib/runtime/recompute.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { toArray } from "../../lib/tensor.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { initialLossScale } from "../../lib/train/loss_scale.ts";
import { aligned, assertSameGradients, type Block, randomBatch, spied, tinyModel } from "./support.ts";

let set: DeviceSet, single: DeviceSet;
before(async () => [set, single] = [await openDevices(2), await openDevices(1)]);
after(() => [set, single].forEach((each) => each.close()));

const schedule = twoStage(generate("1f1b-1", { devices: 2, microbatches: 4 }));
const batch = randomBatch(aligned, 8);
const optimizer = sgd({ learningRate: 0.1 });
const precision = "mixed";

/** A test that is skipped where the devices have no f16. */
function testMixed(name: string, body: () => Promise<void>): void {
  test(name, async (t) => {
    if (set.devices.every(({ gpu }) => gpu.info.f16)) await body();
    else t.skip("this device has no f16");
  });
}

testMixed(
  "mixed precision has nearly the loss and gradients of f32, whatever the loss scale, cut and schedule",
  async () => {
    const run = async (devices: DeviceSet, options: { precision?: "mixed"; lossScale?: number } = {}) => {
      const pipeline = createPipeline(devices, tinyModel(aligned), { optimizer, ...options });
      const base = generate("1f1b-1", { devices: devices.devices.length, microbatches: 4 });
      const { loss, lossScale } = await pipeline.step(devices === set ? twoStage(base) : base, batch, {
        optimize: false,
      });
      const gradients = await pipeline.gradients();
      pipeline.close();
      return { loss, lossScale, gradients };
    };
    const expected = await run(set);
    assert.equal(expected.lossScale, undefined);
    for (const [devices, wanted] of [[set, undefined], [set, 2 ** 12], [single, undefined]] as const) {
      const { loss, lossScale, gradients } = await run(devices, { precision, lossScale: wanted });
      assert.equal(lossScale, wanted ?? initialLossScale);
      assert.ok(Math.abs(loss - expected.loss) < 1e-4 * expected.loss, `loss ${loss}, not ${expected.loss}`);
      assertSameGradients(gradients, expected.gradients, 4e-3, `scale ${lossScale}`); // f16 rounds by up to 5e-4, often
    }
  },
);

testMixed("mixed precision gives the same for every schedule, width and recomputation", async () => {
  const run = async (schedule: Schedule, recompute: RecomputeText) => {
    const pipeline = createPipeline(set, tinyModel(aligned), { optimizer, precision, recompute });
    const { loss } = await pipeline.step(schedule, batch, { optimize: false });
    const gradients = await pipeline.gradients();
    pipeline.close();
    return { loss, gradients };
  };
  const of = (name: string) => generate(name, { devices: 2, microbatches: 4 });
  const expected = await run(of("naive"), "none");
  for (const name of ["gpipe", "1f1b-1"]) {
    const wide = [2, 4].map((width) => twoStage(of(name), { policy: "end", width }));
    for (const schedule of [of(name), twoStage(of(name)), ...wide]) {
      for (const recompute of ["none", "both"] as const) {
        const { loss, gradients } = await run(schedule, recompute);
        const what = `${name}, ${schedule.policy ?? "without 2BP"}, width ${sizesOf(schedule).width}, ${recompute}`;
        assert.equal(loss, expected.loss, what); // the forward is the same, bit for bit
        assertSameGradients(gradients, expected.gradients, 1e-5, what);
      }
    }
  }
});

testMixed("without loss scaling small gradients are lost in f16: what it is for", async () => {
  const run = async (options: { precision?: "mixed"; lossScale?: number }) => {
    const pipeline = createPipeline(set, tinyModel(aligned), { optimizer, ...options });
    const quiet = [...await pipeline.parameters()].map(([name, values]) =>
      [name, name.startsWith("head") ? values.map((value) => value * 1e-3) : values] as const
    );
    pipeline.setParameters(new Map(quiet)); // hardly anything flows back through the head
    await pipeline.step(schedule, batch, { optimize: false });
    const gradient = (await pipeline.gradients()).get("embedding.weight")!;
    pipeline.close();
    return gradient;
  };
  const [expected, scaled, bare] = [await run({}), await run({ precision }), await run({ precision, lossScale: 1 })];
  const off = (actual: Float32Array) =>
    Math.hypot(...actual.map((value, i) => value - expected[i])) / Math.hypot(...expected);
  assert.ok(off(scaled) < 1e-2, `${off(scaled)}`);
  assert.ok(off(bare) > 5 * off(scaled), `${off(bare)} without, ${off(scaled)} with`);
});

testMixed("a step that overflows is left out on all ranks, the scale is halved, and training goes on", async () => {
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer: adamw(), precision, lossScale: 2 ** 27 });
  const start = await pipeline.parameters();
  let scale = 2 ** 27, skipped = 0;
  for (let step = 0; step < 20; step++) {
    const result = await pipeline.step(schedule, batch);
    assert.equal(result.lossScale, scale);
    assert.ok(Number.isFinite(result.loss), "the loss itself is not scaled");
    for (const gradient of (await pipeline.gradients()).values()) {
      assert.ok(gradient.every((value) => value === 0), "gradients are zero after the step");
    }
    if (!result.skipped) break;
    assert.deepEqual(await pipeline.parameters(), start);
    scale /= 2;
    skipped++;
  }
  assert.ok(skipped > 0 && skipped < 19, `${skipped} steps were skipped`);
  const trained = await pipeline.parameters();
  for (const [name, values] of start) assert.notDeepEqual(trained.get(name), values, `${name} is trained`);
  // Adam's first step is the learning rate in each element: a moment that had seen an infinity would show.
  const expected = createPipeline(single, tinyModel(aligned), { optimizer: adamw() });
  await expected.step(generate("naive", { devices: 1, microbatches: 4 }), batch);
  const moved = (to: ReadonlyMap<string, Float32Array>) =>
    new Map([...start].map(([name, values]) => [name, values.map((value, i) => to.get(name)![i] - value)]));
  assertSameGradients(moved(trained), moved(await expected.parameters()), 0.2, "the first update");
  expected.close();
  pipeline.close();
});

testMixed("an infinity in the gradients of one rank makes all of them leave the step out", async () => {
  const { optimizer: watched, blocks } = spied(optimizer);
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer: watched, precision });
  const start = await pipeline.parameters();
  assert.deepEqual(blocks.map(({ gradients }) => gradients.device.rank), [0, 1]);
  for (const { gradients } of blocks) {
    gradients.device.write(gradients, Float32Array.of(-Infinity));
    assert.equal((await pipeline.step(schedule, batch)).skipped, true);
    assert.deepEqual(await pipeline.parameters(), start);
  }
  assert.equal((await pipeline.step(schedule, batch)).skipped, false);
  pipeline.close();
});

testMixed("a forward that overflows f16 is an error that names the micro-batch, and changes nothing", async () => {
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer, precision });
  const fine = await pipeline.parameters();
  const huge = new Map(
    [...fine].map(([name, values]) =>
      [name, name.startsWith("head") ? values.map((value) => value * 1e7) : values] as const
    ),
  );
  pipeline.setParameters(huge);
  await assert.rejects(pipeline.step(schedule, batch), /Rank 1 failed at 1F0: the loss of the micro-batch is/);
  assert.deepEqual(await pipeline.parameters(), huge);
  pipeline.setParameters(fine);
  assert.equal((await pipeline.step(schedule, batch)).skipped, false);
  pipeline.close();
});

/** What kernels read are the masters, rounded to f16. */
async function checkCopies(blocks: readonly Block[]) {
  assert.ok(blocks.length >= 2);
  for (const { masters, copy } of blocks) {
    assert.equal(copy!.dtype, "f16");
    assert.deepEqual(await toArray(copy!), fromHalf(toHalf(await toArray(masters))), `rank ${masters.device.rank}`);
  }
}

testMixed("parameters are the f32 masters, and what kernels read is their f16 copy, set or trained", async () => {
  const { optimizer, blocks } = spied(adamw());
  const pipeline = createPipeline(set, tinyModel(aligned), { optimizer, precision });
  const check = async () => {
    await checkCopies(blocks);
    return await pipeline.parameters();
  };
  const start = await check();
  const fine = new Map([...start].map(([name, values]) => [name, values.map((value) => value + 1e-6)]));
  pipeline.setParameters(fine);
  assert.deepEqual(await check(), fine, "changes that f16 would not show are kept");
  await pipeline.step(schedule, batch);
  assert.notDeepEqual(await check(), fine);
  pipeline.close();
});

testMixed("tied parameters stay alike in mixed precision, masters and copies", async () => {
  const model = tinyModel(aligned);
  const head = linear("tied_head", aligned.width, aligned.vocabulary, { transposed: true });
  const body = model.layers.slice(0, -1), table = body[0].parameters[0];
  const tied: Model = { ...model, layers: [...body, head], tied: [[table, head.parameters[0]]] };
  const { optimizer, blocks } = spied(adamw());
  const pipeline = createPipeline(set, tied, { optimizer, precision });
  const before = (await pipeline.parameters()).get(table.name);
  for (let step = 0; step < 3; step++) await pipeline.step(schedule, randomBatch(aligned, 8, step));
  const after = await pipeline.parameters();
  assert.deepEqual(after.get("tied_head.weight"), after.get(table.name));
  await checkCopies(blocks);
  assert.notDeepEqual(after.get(table.name), before);
  pipeline.close();
});

testMixed("predicted peaks in mixed precision equal those of a real step, by category", async () => {
  const { software, subgroupSize } = set.devices[0].gpu.info;
  const recipe = { optimizer: adamw(), precision, software, subgroupSize } as const;
  for (
    const each of [generate("1f1b-2", { devices: 2 }), twoStage(generate("1f1b-2", { devices: 2 }), { policy: "end" })]
  ) {
    const predicted = await predictMemory(tinyModel(aligned), each, 2, recipe);
    const pipeline = createPipeline(set, tinyModel(aligned), { optimizer: adamw(), precision });
    await pipeline.step(each, randomBatch(aligned, 2 * sizesOf(each).microbatches)); // staging buffers are made
    const { peaks } = await pipeline.step(each, randomBatch(aligned, 2 * sizesOf(each).microbatches));
    pipeline.close();
    for (const [rank, { categories }] of peaks.entries()) {
      for (const category of ["parameters", "gradients", "optimizer", "activations", "derivatives"] as const) {
        assert.equal(predicted[rank].categories[category], categories[category], `rank ${rank}, ${category}`);
      }
    }
  }
});

test("mixed precision takes half the activations, derivatives and messages, and keeps masters with the optimizer", async () => {
  const { software, subgroupSize } = set.devices[0].gpu.info;
  const at = async (precision: "f32" | "mixed") => {
    const [{ categories }] = await predictMemory(tinyModel({ ...aligned, width: 64, hidden: 128 }), schedule, 2, {
      optimizer: adamw(),
      precision,
      software,
      subgroupSize,
    });
    return categories;
  };
  const [full, mixed] = [await at("f32"), await at("mixed")];
  const ratio = (category: keyof typeof full) => mixed[category] / full[category];
  assert.ok(ratio("activations") < 0.56 && ratio("derivatives") < 0.56, JSON.stringify([full, mixed]));
  assert.equal(ratio("transfer"), 0.5);
  assert.ok(Math.abs(ratio("parameters") - 0.5) < 0.02);
  assert.ok(Math.abs(ratio("gradients") - 1) < 0.02);
  assert.ok(Math.abs(ratio("optimizer") - 1.5) < 0.02);
});

test("mixed precision on a device without f16 is an error that says so, before anything is placed", () => {
  /** The same, but for some fields. */
  const like = <T extends object>(original: T, fields: Partial<T>): T =>
    new Proxy(original, {
      get(_, name) {
        if (Object.hasOwn(fields, name)) return fields[name as keyof T];
        const value = Reflect.get(original, name, original);
        return typeof value === "function" ? value.bind(original) : value;
      },
    });
  const bare = set.devices.map((device) =>
    like(device, { gpu: like(device.gpu, { info: { ...device.gpu.info, f16: false, name: "Old GPU" } }) })
  );
  const before = set.devices.map(({ ledger }) => ledger.total());
  assert.throws(
    () => createPipeline({ ...set, devices: bare }, tinyModel(aligned), { optimizer, precision }),
    { name: "UserError", message: "Mixed precision needs 16-bit floats in shaders, which rank 0 (Old GPU) has not" },
  );
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), before);
});
