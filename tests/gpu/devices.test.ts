import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Device } from "../../lib/gpu/device.ts";
import { openDevices } from "../../lib/gpu/devices.ts";
import { listCards } from "../../lib/gpu/driver.ts";
import { shareHardware, shareOfTimes } from "../../lib/gpu/separate.ts";
import { add } from "../../lib/ops/elementwise.ts";
import { empty, fromArray, release, toArray, view } from "../../lib/tensor.ts";

test("openDevices() gives every rank a device that computes, and closing ends with an empty ledger", async () => {
  const set = await openDevices(2);
  try {
    for (const device of set.devices) {
      const a = fromArray(device, [3], new Float32Array([1, 2, 3]), "activations");
      const b = empty(device, [3], "activations");
      add(b, a, a);
      assert.deepEqual([...await toArray(b)], [2, 4, 6]);
      release(a, b);
      assert.equal(device.ledger.total(), 0);
    }
  } finally {
    set.close();
  }
});

test("openDevices() refuses options that it has not", async () => {
  for (
    const [options, message] of [
      [null, /^openDevices takes an object with virtual, driver, not null$/],
      [2, /^openDevices takes an object/],
      [{ vitual: true }, /^openDevices: there is no "vitual"; there are virtual, driver$/],
    ] as const
  ) await assert.rejects(openDevices(1, options as never), { name: "UserError", message });
});

test("openDevices() turns to virtual devices, and says so, where there are not enough real ones", async () => {
  const count = availableParallelism() + 1;
  const set = await openDevices(count);
  set.close();
  if (set.devices[0].gpu.info.software) {
    assert.equal(set.mode, "virtual");
    assert.match(
      set.notice ?? "",
      new RegExp(`^${count} devices asked for, ${count - 1} cores? found: the devices are virtual`),
    );
  }
});

test("shareHardware() tells two devices of their own from two ranks on one", async () => {
  const [real, virtual] = [await openDevices(2), await openDevices(2, { virtual: true })];
  /** Whatever else this machine is doing takes part in the race: they may run it again, a second later. */
  const saysWithin = async (attempts: number, expected: boolean, [a, b]: readonly Device[]) => {
    for (let attempt = 0; attempt < attempts; attempt++) {
      if (await shareHardware(a, b) === expected) return true;
      await new Promise((later) => setTimeout(later, 1000));
    }
    return false;
  };
  try {
    if (real.mode === "real") assert(await saysWithin(20, false, real.devices));
    assert(await saysWithin(3, true, virtual.devices)); // both cores may be taken, but one device never becomes two
  } finally {
    real.close();
    virtual.close();
  }
});

test("a machine that holds up most turns of one kind does not make one GPU look like two, nor two like one", () => {
  const held = (kind: "both" | "first", quiet: { both: number; first: number; second: number }) =>
    Array.from({ length: 9 }, (_, turn) => turn === 4 ? quiet : { ...quiet, [kind]: quiet[kind] + 30 });
  assert.equal(shareOfTimes(held("first", { both: 40, first: 20, second: 20 })), 1); // by its median 0.57
  assert.equal(shareOfTimes(held("both", { both: 20, first: 20, second: 20 })), 0.5); // by its median 1.25
});

test("a mistake that WebGPU reports later surfaces at the next wait, with the rank named", async () => {
  const set = await openDevices(2);
  try {
    const device = set.devices[1];
    const short = empty(device, [4], "workspace");
    device.copy(short.storage.buffer, 0, short.storage.buffer, 128, 4096); // far beyond its end
    await assert.rejects(device.idle(), /^Error: Rank 1 \(.+\): Validation error: /);
    await device.idle(); // reported once, and the device goes on
  } finally {
    set.close();
  }
});

test("a lost device surfaces at the next wait, with the rank named", async () => {
  const set = await openDevices(1);
  set.devices[0].gpu.device.destroy();
  await assert.rejects(set.devices[0].idle(), /^Error: Rank 0 \(.+\): device lost/);
  set.close();
});

test("a buffer beyond the device's limit is refused with rank, bytes and category", async () => {
  const set = await openDevices(1);
  try {
    const [device] = set.devices;
    const most = device.gpu.device.limits.maxStorageBufferBindingSize;
    assert.throws(
      () => device.allocate(most + 1, "activations"),
      new RegExp(
        `Rank 0 \\(.+\\): ${most + 1} bytes of activations asked for in one buffer, where this device allows \\d+`,
      ),
    );
    assert.equal(device.ledger.total(), 0);
  } finally {
    set.close();
  }
});

test("the pool counts what is in use, gives freed buffers out again, and names a second release", async () => {
  const set = await openDevices(1);
  try {
    const [{ ledger, pool }] = set.devices;
    const tensor = empty(set.devices[0], [100], "derivatives");
    const shared = view(tensor, [10]);
    assert.equal(ledger.live.derivatives, 512); // 400 bytes, rounded up to 256
    release(tensor);
    assert.equal(ledger.live.derivatives, 512);
    release(shared);
    assert.deepEqual([ledger.live.derivatives, ledger.peak.derivatives, pool.slack()], [0, 512, 512]);
    assert.throws(() => release(tensor), /released twice/);
    assert.equal(empty(set.devices[0], [128], "parameters").storage, tensor.storage);
    pool.trim();
    assert.equal(pool.slack(), 0);
  } finally {
    set.close();
  }
});

test("listCards() finds the display controllers of a vendor by PCI address", async () => {
  const { mkdirSync, mkdtempSync, rmSync, writeFileSync } = await import("node:fs");
  const { tmpdir } = await import("node:os");
  const root = mkdtempSync(`${tmpdir()}/cards-`);
  const card = (address: string, kind: string, vendor: string) => {
    mkdirSync(`${root}/${address}`);
    writeFileSync(`${root}/${address}/class`, `${kind}\n`);
    writeFileSync(`${root}/${address}/vendor`, `${vendor}\n`);
  };
  card("0000:95:00.0", "0x030200", "0x10de");
  card("0000:65:00.0", "0x030000", "0x10de");
  card("0000:66:00.0", "0x040300", "0x10de"); // its sound device
  card("0000:00:02.0", "0x030000", "0x8086");
  assert.deepEqual(listCards("nvidia", root), ["0000:65:00.0", "0000:95:00.0"]);
  assert.deepEqual(listCards("nvidia", `${root}/missing`), []);
  rmSync(root, { recursive: true });
});

test("a process waits for a busy device at the price of about one core, and ends by itself", () => {
  const script = fileURLToPath(new URL("busy.ts", import.meta.url));
  const output = execFileSync(process.execPath, ["run", "-A", "--no-check", script], {
    encoding: "utf8",
    timeout: 60_000,
  });
  const { software, share } = JSON.parse(output);
  // One core for the driver's thread where it is software, and next to nothing for waiting.
  assert.ok(share < (software ? 1.35 : 0.5), `processor time is ${share} of the wall-clock time`);
});
