/** Clocks from messages there and back: closed forms, and true clocks of which all but the messages' own times is known. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { generator } from "../../lib/random.ts";
import {
  boundsOf,
  chained,
  type ClockBounds,
  type ClockReading,
  type ClockSample,
  clocksBetween,
  clocksOf,
  clockThrough,
  onFirstClock,
} from "../../lib/runtime/clocks.ts";
import { readClocks } from "../../lib/runtime/read_clocks.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import type { DeviceSet } from "../../lib/gpu/devices.ts";

test("equal ways there and back give the offset exactly, and half the way as its error", () => {
  // The other clock shows 1000 more; messages take 3, once 1.
  const samples = [{ sent: 10, told: 1013, arrived: 16 }, { sent: 20, told: 1021, arrived: 22 }];
  const look = boundsOf(samples);
  assert.deepEqual(look, { at: 1021, low: -1001, high: -999 });
  assert.deepEqual(clockThrough([look, look]), { at: 1021, offset: -1000, drift: 0, error: 1 });
});

test("two looks give the drift of a clock, and times in between by the line through both", () => {
  const looks = [{ at: 100, low: -101, high: -99 }, { at: 300, low: -103, high: -101 }];
  const clock = clockThrough(looks);
  assert.deepEqual(clock, { at: 100, offset: -100, drift: -0.01, error: 1 });
  assert.equal(onFirstClock({ ...clock, group: 0 }, 200), 99);
});

test("looks at a clock without drift are taken together: what one leaves open another closes", () => {
  const looks = [{ at: 0, low: -1, high: 5 }, { at: 9, low: 3, high: 8 }];
  assert.deepEqual(clockThrough(looks, true), { at: 0, offset: 4, drift: 0, error: 1 });
  const contrary = [{ at: 0, low: 0, high: 2 }, { at: 10, low: 4, high: 6 }];
  assert.equal(clockThrough(contrary, true).drift, 0.4, "it drifts after all");
});

test("whatever messages take each way, by way of two clocks that drift, a time is off by no more than what is said", () => {
  const random = generator("clocks");
  const between = (least: number, most: number) => least + (most - least) * random.uniform();
  let tight = 0;
  for (let round = 0; round < 2000; round++) {
    // The process's clock and the device's, by true time, which the first process's shows.
    const [processStart, deviceStart] = [between(-1e6, 1e6), between(-1e6, 1e6)];
    const [processRate, deviceRate] = [1 + between(-4e-5, 4e-5), 1 + between(-4e-5, 4e-5)];
    const processTime = (time: number) => processStart + processRate * time;
    const deviceTime = (time: number) => deviceStart + deviceRate * time;
    const sample = (time: number, asker: (time: number) => number, other: (time: number) => number): ClockSample => {
      const there = between(0, 1) ** 4, back = between(0, 1) ** 4;
      return { sent: asker(time), told: other(time + there), arrived: asker(time + there + back) };
    };
    const look = (time: number): ClockBounds => {
      const many = [0, 3, 6, 9];
      const process = boundsOf(many.map((later) => sample(time + later, (at) => at, processTime)));
      const device = boundsOf(many.map((later) => sample(time + 20 + later, processTime, deviceTime)));
      return chained(device, process);
    };
    const start = between(0, 1e6), length = between(30, 5000);
    const looks = [look(start), look(start + length)], clock = { ...clockThrough(looks), group: 0 };
    for (let i = 0; i < 8; i++) {
      const own = between(looks[0].at, looks[1].at);
      const off = Math.abs(onFirstClock(clock, own) - (own - deviceStart) / deviceRate);
      assert.ok(off <= clock.error + 1e-6, `${off} of ${clock.error}`);
      if (off > clock.error / 2) tight++;
    }
  }
  assert.ok(tight > 100, "the bound is no larger than it must be");
});

/** A reading of devices whose clocks are so much behind, with so much left open. */
function reading(at: number, devices: readonly { behind: number; open: number; machine: string; software: boolean }[]) {
  return {
    peers: devices.map(({ behind, open, machine, software }) => ({
      device: { at: at - behind, low: behind - open / 2, high: behind + open / 2 },
      process: { at, low: 0, high: 0 },
      ...{ machine, software, isNear: machine === "here" },
    })),
  } satisfies ClockReading;
}

test("software devices of one machine are on one clock exactly; those of another machine, and GPUs, each on their own", () => {
  const devices = [
    { behind: 5, open: 0.2, machine: "here", software: true },
    { behind: 5.05, open: 0.4, machine: "here", software: true },
    { behind: -70, open: 0.6, machine: "there", software: true },
    { behind: -70, open: 0.6, machine: "there", software: true },
    { behind: 5, open: 0.1, machine: "here", software: false },
    { behind: 9, open: 0.2, machine: "here", software: true }, // it contradicts: this driver has another clock
  ];
  const { peers, error } = clocksBetween(reading(0, devices), reading(1000, devices));
  assert.deepEqual(peers.map(({ group }) => group), [0, 0, 1, 1, 2, 3]);
  assert.deepEqual({ ...peers[1], at: 0 }, { ...peers[0], at: 0 });
  peers.forEach((clock, peer) => assert.ok(Math.abs(onFirstClock(clock, 500) - 500 - devices[peer].behind) < 0.3));
  assert.ok(error > 0.4 && error < 0.5, `${error}: 0.3 there and 0.1 here, and what a moment's drift may add`);
  assert.equal(clocksOf(peers.slice(0, 2)).error, 0);
  assert.deepEqual(clocksOf(peers.slice(2, 5)).peers.map(({ group }) => group), [0, 0, 1]);
});

test("readings in the wrong order or of other devices, and devices without a clock, are refused", async () => {
  const one = { behind: 5, open: 0.2, machine: "here", software: true };
  const early = reading(0, [one]), late = reading(10, [one]);
  assert.throws(() => clocksBetween(late, early), { name: "UserError", message: /must be the earlier one/ });
  assert.throws(() => clocksBetween(early, reading(10, [one, one])), {
    message: "clocksBetween: both readings must be of the same devices, and these are of 1 and 2",
  });
  const set = { mode: "real", devices: dryDevices(1), adapter: "dry", driver: "system", close() {} } as DeviceSet;
  await assert.rejects(readClocks({ ...set, mode: "virtual" }), { message: /^readClocks: virtual devices take turns/ });
  await assert.rejects(readClocks(set), {
    name: "UserError",
    message: /^readClocks: process 0: .* has no timestamps$/,
  });
});
