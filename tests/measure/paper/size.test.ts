/** Which size is taken, by stub rates and needs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseSize, type SizeOptions } from "../../../lib/measure/paper/size.ts";

/** Sizes by their number of parameters; their work is a thousand operations each, a trial a tenth of one. */
const sizes: Readonly<Record<string, number>> = { full: 1e6, half: 1e5, tiny: 1e3 };
const failure = new Error("out of memory");

/** Options with a device of 1e6 operations a second, faster by `faster` with each size, whose trials are counted. */
function stub(options: Partial<SizeOptions> & { faster?: number; fails?: string; setUpMs?: number } = {}) {
  const { faster = 1, fails, setUpMs = 0, ...others } = options;
  const trials: string[] = [];
  const choice = chooseSize({
    models: Object.keys(sizes),
    bytes: Infinity,
    ms: 1e9,
    need: (model) => Promise.resolve(16 * sizes[model]),
    work: (model) => Promise.resolve({ all: 1000 * sizes[model], probe: sizes[model] / 10, parameters: sizes[model] }),
    rate(model) {
      trials.push(model);
      if (model === fails) return Promise.reject(failure);
      const rate = 1e6 * faster ** (2 - Object.keys(sizes).indexOf(model));
      return Promise.resolve({ rate, setUpMs: setUpMs * sizes[model] / 1e3 });
    },
    isOfDevice: (error) => error === failure,
    ...others,
  });
  return { choice, trials };
}

test("with memory and time for all of them the largest size is taken, and all have been tried, the smallest first", async () => {
  const { choice, trials } = stub();
  const { model, tried, bytes } = await choice;
  assert.deepEqual([model, trials, bytes], ["full", ["tiny", "half", "full"], undefined]);
  assert.deepEqual(tried.map(({ ms, reason }) => [ms, reason]), [[1e3, undefined], [1e5, undefined], [1e6, undefined]]);
});

test("what takes more memory than there is is not tried, and its need is told", async () => {
  const { choice, trials } = stub({ bytes: 2e6 });
  const { model, tried, bytes } = await choice;
  assert.deepEqual([model, trials, bytes], ["half", ["tiny", "half"], 2e6]);
  const { reason, bytes: needed, rate, ms } = tried[2];
  assert.deepEqual([reason, needed, rate, ms], ["memory", 16e6, undefined, undefined]);
});

test("what takes longer than there is time is tried and not taken, by the rate that it reached itself", async () => {
  // Half takes 1e8 operations at 2e6 a second, full 1e9 at 4e6.
  const { choice, trials } = stub({ ms: 100_000, faster: 2 });
  const { model, tried } = await choice;
  assert.deepEqual([model, trials], ["half", ["tiny", "half", "full"]]);
  assert.deepEqual([tried[2].reason, tried[2].rate, tried[2].ms], ["time", 4e6, 250_000]);
});

test("what a trial alone would take too long for is not tried, whether it is the set-up or the steps", async () => {
  const slow = stub({ ms: 150 }); // a trial of full takes 100 ms, more than half
  assert.deepEqual((await slow.choice).tried.map(({ reason }) => reason), ["time", "time"]);
  const heavy = stub({ ms: 400_000, setUpMs: 1000 }); // a set-up of full takes a million ms, of half 100,000
  const { model, tried } = await heavy.choice;
  assert.deepEqual([model, heavy.trials], ["half", ["tiny", "half"]]);
  assert.ok(Math.abs(tried[2].trialMs! - 1e6 - 100) < 1e-6, `${tried[2].trialMs}`);
});

test("what would take more than 32 times the time there is, at the rate of the size below, is not tried", async () => {
  for (const [ms, expected] of [[3000, ["tiny"]], [3300, ["tiny", "half"]]] as const) { // half takes 1e5 ms
    const { choice, trials } = stub({ ms });
    assert.equal((await choice).model, "tiny");
    assert.deepEqual(trials, expected);
  }
});

test("the smallest size is taken however long it takes, and it is told how long the next would", async () => {
  const { choice, trials } = stub({ ms: 10 });
  const { model, tried } = await choice;
  assert.deepEqual([model, trials], ["tiny", ["tiny"]]);
  assert.deepEqual(tried.map(({ model, reason, ms }) => [model, reason, ms]), [["tiny", "time", 1e3], [
    "half",
    "time",
    1e5,
  ]]);
});

test("a size that the device fails with is not taken, and what the device said is told", async () => {
  const { model, tried } = await stub({ fails: "full" }).choice;
  assert.deepEqual([model, tried[2].reason, tried[2].message], ["half", "device", "out of memory"]);
});

test("where not even the smallest size fits, one line says why", async () => {
  const refused = (choice: Promise<unknown>, message: RegExp) => assert.rejects(choice, { name: "UserError", message });
  await refused(stub({ bytes: 10 }).choice, /^tiny, the smallest of its kind, takes 15\.6 KiB, and there are 10\.0 B$/);
  await refused(stub({ fails: "tiny" }).choice, /^tiny, the smallest of its kind, does not run: out of memory$/);
  await refused(stub({ ms: 0 }).choice, /^chooseSize: ms must be a number above 0, not 0$/);
  await refused(stub({ models: [] }).choice, /^chooseSize: models must be a list of one or more, not \[\]$/);
});

test("an error that is not the device's is thrown on", async () => {
  await assert.rejects(stub({ rate: () => Promise.reject(new TypeError("ours")) }).choice, /ours/);
});
