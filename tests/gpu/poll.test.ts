/** How long the thread is parked between two polls; the clock and the parks are made up. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { installPolling, polled } from "../../lib/gpu/poll.ts";

const { now } = performance, { wait } = Atomics, setNow = globalThis.setImmediate;
let clock = 0;
const parks: number[] = [];
performance.now = () => clock;
Atomics.wait = ((_cell: Int32Array, _at: number, _value: number, ms: number) => parks.push(ms)) as never;
installPolling();
after(() => {
  performance.now = now;
  Atomics.wait = wait;
  globalThis.setImmediate = setNow;
});
beforeEach(() => void parks.splice(0));

/** The park of a poll of Dawn's, whose functions are native, as bound ones are. */
async function parkOf(): Promise<number> {
  parks.splice(0);
  await new Promise<void>((resolve) => setImmediate(resolve.bind(null)));
  return parks[0] ?? 0;
}

/** Makes a wait that ends after `length`, and returns the park at each of the given times in it. */
async function during(length: number, times: readonly number[], routine?: object, name?: string): Promise<number[]> {
  const start = clock;
  let end!: () => void;
  const waiting = polled(new Promise<void>((resolve) => end = resolve), routine, name);
  const found: number[] = [];
  for (const time of times) {
    clock = start + time;
    found.push(await parkOf());
  }
  clock = start + length;
  end();
  await waiting;
  return found;
}

const close = (actual: readonly number[], expected: readonly number[]) => {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-9, `${actual}, not ${expected}`));
};

/** Nobody knows how long: a sixteenth of what has been waited. */
const unknown = [0, 0.1, 0.25, 1, 2];
const times = [0.01, 1, 4, 16, 80];

test("a wait without a name is parked for the longer the longer it lasts, however often it was made", async () => {
  const routine = {};
  for (let time = 0; time < 3; time++) {
    close(await during(100, times), unknown);
    close(await during(100, times, routine), unknown);
  }
});

test("a wait with a name is parked until shortly before it ended the last times, and closely polled from there on", async () => {
  const routine = {};
  close(await during(16, times.slice(0, 4), routine, "look"), unknown.slice(0, 4));
  // 5 % before 16 ms, parks of up to 5 ms.
  close(await during(16, [0.01, 1, 12.2, 15, 15.19, 15.5, 16], routine, "look"), [0, 5, 3, 0.2, 0.1, 0.1, 0.1]);
  close(await during(40, [20, 32], routine, "look"), [0.25, 1]);
  close(await during(8, [3], routine, "look"), [5]);
  close(await during(20, [5], routine, "look"), [2.6]); // the shortest of the last five counts
});

test("waits are remembered by name and by routine, five times, and nothing else", async () => {
  const one = {}, other = {};
  await during(8, [], one, "look");
  close(await during(8, [4], one, "end"), [0.25]);
  close(await during(8, [4], other, "look"), [0.25]);
  close(await during(100, [4], one, "look"), [3.6]);
  for (let time = 0; time < 4; time++) close(await during(100, [4], one, "look"), [3.6]);
  close(await during(100, [4], one, "look"), [5]);
});
