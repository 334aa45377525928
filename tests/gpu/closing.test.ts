import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { createTimer } from "../../lib/gpu/timing.ts";
import { createModel } from "../../lib/models/registry.ts";
import { add } from "../../lib/ops/elementwise.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { processState } from "./process_state.ts";

/** Computes and reads on every device, so that each has compiled, mapped and staged something. */
async function use({ devices }: DeviceSet) {
  for (const device of devices) {
    const a = fromArray(device, [3], Float32Array.of(1, 2, 3), "activations");
    const b = empty(device, [3], "activations");
    add(b, a, a);
    assert.deepEqual([...await toArray(b)], [2, 4, 6]);
    createTimer(device)?.slot(0); // left open
  }
}

async function openUseClose(sets: number) {
  for (let i = 0; i < sets; i++) {
    const set = await openDevices(2);
    await use(set);
    set.close();
  }
  await new Promise((later) => setTimeout(later, 50)); // threads take a moment to end
}

test(
  "sets of devices that are opened and closed leave nothing behind, without any help of the garbage collector",
  { skip: process.platform !== "linux" },
  async () => {
    await openUseClose(4);
    const before = processState();
    await openUseClose(12);
    const after = processState();
    // What each set once left: 6 threads, 3 descriptors, 40 mappings, 5.5 MiB.
    assert.ok(after.threads <= before.threads + 2, `threads: ${before.threads}, then ${after.threads}`);
    assert.ok(after.descriptors <= before.descriptors + 2, `${before.descriptors}, then ${after.descriptors}`);
    assert.ok(after.mappings <= before.mappings + 60, `mappings: ${before.mappings}, then ${after.mappings}`);
    assert.ok(after.mebibytes <= before.mebibytes + 40, `MiB: ${before.mebibytes}, then ${after.mebibytes}`);
  },
);

test("devices that are open at the same time share nothing, and a closed one's place is taken by the next", async () => {
  const [a, b] = [await openDevices(2), await openDevices(2)];
  a.close();
  await use(b);
  const c = await openDevices(2);
  await use(c);
  b.close();
  await use(c);
  c.close();
});

test("closing a second time does nothing, and every use of closed devices is one line that says so", async () => {
  for (const virtual of [false, true]) {
    const set = await openDevices(2, { virtual });
    const [, device] = set.devices;
    const [a, b] = [1, 2].map(() => fromArray(device, [4], new Float32Array(4), "workspace"));
    add(b, a, a); // recorded, never submitted
    set.close();
    set.close();
    const view = { storage: a.storage, offset: 0, bytes: 16 };
    const calls: Record<string, () => unknown> = {
      allocate: () => device.allocate(256, "workspace"),
      beginPass: () => device.beginPass(),
      dispatch: () => add(b, a, a),
      copy: () => device.copy(a.storage.buffer, 0, b.storage.buffer, 0, 16),
      write: () => device.write(view, new Float32Array(4)),
      read: () => device.read(view),
      submit: () => device.submit(),
      finish: () => device.finish(),
      idle: () => device.idle(),
      check: () => device.check(),
    };
    for (const [name, call] of Object.entries(calls)) {
      await assert.rejects(async () => await call(), {
        name: "UserError",
        message: `The devices are closed, ${name}() on rank 1 comes too late; open others with openDevices()`,
      }, name);
    }
    const others: (() => unknown)[] = [
      () => device.gpu.device,
      () => device.gpu.queue,
      () => toArray(a),
      () => fromArray(device, [1], new Float32Array(1), "workspace"),
      () => createTimer(device),
      () => createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() }),
    ];
    for (const call of others) {
      await assert.rejects(async () => await call(), (error) => {
        assert.ok(error instanceof UserError, String(call));
        assert.match(error.message, /^The devices are closed[^\n]*open others with openDevices\(\)$/);
        return true;
      });
    }
    release(a, b); // what others held may still be given back
    device.abandon();
    device.releaseCaches();
    await device.settle();
  }
});

test("what is under way when the devices are closed fails in one line, and nothing hangs", async () => {
  const set = await openDevices(2);
  const pending = set.devices.flatMap((device) => {
    const tensor = fromArray(device, [1024], new Float32Array(1024), "workspace");
    return [toArray(tensor), device.idle()];
  });
  set.close();
  const expected = { name: "UserError", message: /^The devices are closed, (mapped|idle)\(\) on rank [01] comes/ };
  await Promise.all(pending.map((each) => assert.rejects(each, expected)));
});

test("a lost device stays lost: each call says the rank and the reason, the other ranks go on", async () => {
  const set = await openDevices(2);
  const [other, device] = set.devices;
  const tensor = fromArray(device, [4], new Float32Array(4), "workspace");
  await device.idle();
  assert.equal(device.gpu.lost, undefined);
  const pending = toArray(tensor);
  device.gpu.device.destroy();
  const expected = { name: "Error", message: /^Rank 1 \(.+\): device lost \(destroyed\): device was destroyed$/ };
  await assert.rejects(pending, expected);
  for (let i = 0; i < 3; i++) {
    await assert.rejects(device.idle(), expected);
    await assert.rejects(toArray(tensor), expected);
    assert.throws(() => device.check(), expected);
  }
  await device.settle(); // forgets errors, not a loss
  assert.throws(() => device.check(), expected);
  assert.equal(device.gpu.lost, "device lost (destroyed): device was destroyed");
  await other.idle();
  set.close();
  await assert.rejects(device.idle(), { name: "UserError" });
});

test("the error before a loss is told first, and once", async () => {
  const set = await openDevices(1);
  const [device] = set.devices;
  device.gpu.device.createBuffer({ size: 2 ** 45, usage: GPUBufferUsage.STORAGE });
  await assert.rejects(device.idle(), /Rank 0 \(.+\): Validation error: Buffer size/);
  device.gpu.device.destroy();
  await assert.rejects(device.idle(), /Rank 0 \(.+\): device lost \(destroyed\)/);
  set.close();
});

test("a map that is refused without a word is explained", async () => {
  const set = await openDevices(1);
  try {
    const [device] = set.devices;
    const staging = device.gpu.device.createBuffer({
      size: 16,
      usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    const mapped = device.mapped(staging);
    staging.destroy();
    await assert.rejects(mapped, /^Error: Rank 0 \(.+\): a buffer could not be mapped: AbortError$/);
    await device.idle();
  } finally {
    set.close();
  }
});
