import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { adamw, createPipeline, type DeviceSet, generate, openDevices, type Pipeline, twoStage } from "twobp";
import { saveCheckpoint } from "twobp/train";
import { addBias } from "../../lib/ops/bias.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import { DeviceError, isOfMachine } from "../../lib/gpu/device_error.ts";
import { type Counts, type Faults, inject } from "../faults.ts";
import { randomBatch, tiny, tinyModel } from "../runtime/support.ts";

const own = process.env.TWOBP_WEBGPU === "deno" && "the faults are put into Dawn's objects";
const folder = mkdtempSync(join(tmpdir(), "twobp-faults-"));
after(() => {
  if (!own) inject();
  rmSync(folder, { recursive: true });
});

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const calls = ["open", "create", "step", "evaluate", "step", "save"] as const;

/** Opens devices, trains, evaluates and saves, up to the first error; afterwards nothing is held and nothing half-written. */
async function live(virtual = false): Promise<{ at: number; error?: Error }> {
  let set: DeviceSet | undefined, pipeline: Pipeline | undefined, at = 0, error: Error | undefined;
  try {
    set = await openDevices(2, { virtual });
    at++;
    pipeline = createPipeline(set, tinyModel(), { optimizer: adamw() });
    at++;
    await pipeline.step(schedule, randomBatch(tiny, 4));
    at++;
    await pipeline.evaluate(schedule, randomBatch(tiny, 4));
    at++;
    await pipeline.step(schedule, randomBatch(tiny, 4));
    at++;
    await saveCheckpoint(pipeline, folder, { step: 1 });
    at++;
  } catch (thrown) {
    error = thrown as Error;
  }
  pipeline?.close();
  assert.deepEqual(set?.devices.map(({ ledger }) => ledger.total()) ?? [], set ? [0, 0] : []);
  set?.close();
  const saved = readdirSync(folder);
  assert.deepEqual(saved, error ? [] : ["step-000001"]);
  saved.forEach((name) => rmSync(join(folder, name), { recursive: true }));
  return { at, error };
}

/** Lives once for each place in which a fault can happen, and some more; what it returns is at which calls it did. */
async function scan(name: keyof Faults, of: (counts: Counts) => number, expected: RegExp, virtual = false, stride = 1) {
  const counts = inject();
  assert.equal((await live(virtual)).error, undefined);
  const total = of(counts), met = new Set<string>();
  for (let n = 1; n <= total; n += stride) {
    inject({ [name]: n });
    const { at, error } = await live(virtual);
    assert.ok(error, `${name} ${n} of ${total} is silent`);
    assert.match(error.message, expected, `${name} ${n} of ${total}: ${error.message}`);
    assert.doesNotMatch(error.message, /\n/);
    assert.ok(isOfMachine(error), `${name} ${n} of ${total}: ${error.stack}`);
    met.add(calls[at]);
  }
  inject();
  assert.equal((await live(virtual)).error, undefined, "other devices are as good as before");
  return [...met].sort();
}

test(
  "a device that is lost with any submission is told by the next call, its rank named; nothing hangs or is half-written",
  {
    skip: own,
  },
  async () => {
    const lost = /Rank [01] .*device lost \(unknown\): vkQueueSubmit failed with VK_ERROR_DEVICE_LOST/;
    const met = await scan("lostAtSubmission", ({ submissions }) => submissions, lost, false, 7);
    assert.deepEqual(met, ["evaluate", "save", "step"]);
  },
);

test("a device that is lost with a new buffer is told in the same way", { skip: own }, async () => {
  const lost = /Rank [01] .*device lost \(unknown\): vkQueueSubmit failed with VK_ERROR_DEVICE_LOST/;
  await scan("lostAtBuffer", ({ buffers }) => buffers, lost, true, 13);
});

test("memory that runs out at any buffer is one line with rank, bytes, category and a remedy, on a shared GPU too", {
  skip: own,
}, async () => {
  const full = /out of memory: \d+ bytes of \w+ are not to be had for rank [01] at [\w -]+; .* or more ranks take less/;
  for (const virtual of [false, true]) await scan("outOfMemoryAt", ({ buffers }) => buffers, full, virtual, 11);
});

test("errors that follow from a lack of memory do not hide it, whichever comes first", { skip: own }, async () => {
  inject({ outOfMemoryAt: 1 });
  const set = await openDevices(1), [device] = set.devices;
  try {
    device.gpu.device.createBuffer({ size: 2 ** 45, usage: GPUBufferUsage.STORAGE }); // a validation error
    const storage = device.allocate(1000, "activations");
    device.gpu.queue.writeBuffer(storage.buffer, 0, new Float32Array(4));
    await assert.rejects(device.idle(), (error: Error) => error instanceof DeviceError && isOfMachine(error));
    await device.idle(); // told once, and the device goes on
  } finally {
    set.close();
    inject();
  }
});

test(
  "an adapter that is gone when it is to be opened is one line, and leaves nothing open",
  { skip: own },
  async () => {
    const counts = inject();
    const { driver } = await openDevices(2).then((set) => (set.close(), set));
    const { adapters, devices } = counts;
    inject({ noAdapterAt: adapters });
    await assert.rejects(openDevices(2), {
      name: "UserError",
      message: /^No device on the driver "\w+": .* finds no adapter/,
    });
    inject({ noDeviceAt: devices });
    await assert.rejects(openDevices(2, { driver }), {
      name: "UserError",
      message: /which gives no device: vkCreateDevice/,
    });
    inject();
    assert.equal((await live()).error, undefined);
  },
);

test("a parameter that is larger than what a device binds is refused before anything runs", { skip: own }, async () => {
  inject({ largestBuffer: 1024, only: "rank 1" });
  const set = await openDevices(2);
  try {
    assert.throws(() => createPipeline(set, tinyModel(), { optimizer: adamw() }), {
      name: "UserError",
      message:
        /^The model does not fit: Rank 1 \(.*\) allows 1024 bytes in one buffer, and the parameter "[\w.]+" \[[\d, ]+\] takes \d+; give/,
    });
    assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0]);
  } finally {
    set.close();
    inject();
  }
});

test(
  "a buffer of more bytes than kernels can index is refused, whatever the device allows",
  { skip: own },
  async () => {
    inject({ largestBuffer: 2 ** 40 });
    const set = await openDevices(1), [device] = set.devices;
    try {
      assert.throws(() => empty(device, [2 ** 15, 2 ** 15 + 1], "activations"), {
        message: /: 4295098368 bytes of activations asked for in one buffer, where this device allows 4294967296; /,
      });
      assert.equal(device.ledger.total(), 0);
    } finally {
      set.close();
      inject();
    }
  },
);

test(
  "more workgroups along an axis than a device allows are refused with kernel and numbers, and nothing is recorded",
  {
    skip: own,
  },
  async () => {
    inject({ mostWorkgroups: 3 });
    const set = await openDevices(1), [device] = set.devices;
    try {
      const table = fromArray(device, [5, 4], Float32Array.from({ length: 20 }, (_, i) => i), "parameters");
      const bias = fromArray(device, [4], new Float32Array(4), "parameters");
      addBias(table, bias);
      assert.deepEqual([...await toArray(table)].slice(0, 4), [0, 1, 2, 3]);
      const tall = empty(device, [64 * 3 + 1, 4], "activations");
      assert.throws(() => addBias(tall, bias), (error: Error) => {
        assert.match(
          error.message,
          /^Rank 0 \(.*\): \w+:\w+ asks for 4 x 1 workgroups, where this device allows 3 along an axis$/,
        );
        return isOfMachine(error);
      });
      await device.idle();
      release(table, bias, tall);
      assert.equal(device.ledger.total(), 0);
    } finally {
      set.close();
      inject();
    }
  },
);

test(
  "a step for which there was no memory has never happened, and the next one is as without it",
  { skip: own },
  async () => {
    inject();
    const set = await openDevices(2);
    const build = () => createPipeline(set, tinyModel(), { optimizer: adamw() });
    try {
      const undisturbed = build();
      const expected = (await undisturbed.step(schedule, randomBatch(tiny, 4))).loss;
      undisturbed.close();
      for (let n = 1; n < 60; n += 4) {
        const pipeline = build();
        await Promise.all(set.devices.map((device) => device.idle()));
        set.devices.forEach((device) => device.releaseCaches());
        const counts = inject({ outOfMemoryAt: n });
        await assert.rejects(pipeline.step(schedule, randomBatch(tiny, 4)), /out of memory/);
        assert.ok(counts.happened);
        inject();
        assert.equal((await pipeline.step(schedule, randomBatch(tiny, 4))).loss, expected, `after buffer ${n}`);
        pipeline.close();
      }
    } finally {
      set.close();
    }
  },
);
