import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { Gpu } from "../../lib/gpu/gpu.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { kernel } from "../../lib/gpu/kernel.ts";
import { calibrate, problemsOf } from "../../lib/measure/calibrate.ts";
import { measureCandidates } from "../../lib/measure/candidates.ts";
import { choiceKey, readChoices, writeChoices } from "../../lib/measure/choice_cache.ts";
import { createModel } from "../../lib/models/registry.ts";
import {
  type Candidate,
  defineOperation,
  observeProblems,
  setChoices,
  withCandidate,
  withCandidates,
} from "../../lib/ops/choice.ts";
import { fill, scale } from "../../lib/ops/elementwise.ts";
import { matmul, matmulOperation } from "../../lib/ops/matmul.ts";
import { maxPool } from "../../lib/ops/pool.ts";
import { empty, type Tensor } from "../../lib/tensor.ts";
import { close, device, dirty } from "../ops/support.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-choices-"));
after(() => {
  close();
  rmSync(folder, { recursive: true });
});

interface Doubling {
  out: Tensor;
  nested: { x: Tensor }[];
}

/** `out = 2 x`, done so many times over: as dear as one likes. */
function doubling(name: string, times: number, factor = 2): Candidate<Doubling> {
  return {
    name,
    supports: () => true,
    record({ out, nested: [{ x }] }) {
      for (let i = 0; i < times; i++) scale(out, x, factor);
    },
  };
}

const operation = defineOperation<Doubling>({
  name: "test doubling",
  candidates: [
    doubling("reference", 6),
    doubling("usual", 3),
    doubling("best", 1),
    doubling("wrong", 0),
    doubling("subtly wrong", 1, 2.001),
    {
      name: "does not compile",
      supports: () => true,
      record: ({ out }) => out.device.dispatch(kernel("elementwise", "nowhere"), { count: 1, value: 0 }, [out], [1]),
    },
    {
      name: "throws",
      supports: () => true,
      record: () => {
        throw new Error("cannot be recorded");
      },
    },
    { ...doubling("not for this device", 0), supports: () => false },
  ],
  classOf: ({ out }) => `${out.shape}`,
  rule: () => "usual",
  outputs: ({ out }) => [out],
});

async function problem(size = 50_000) {
  const on = await device();
  return { out: dirty(on, [size]), nested: [{ x: dirty(on, [size]) }] };
}

test("an operation takes its rule's candidate, and the first that can where the rule's cannot", async () => {
  const { gpu } = await device();
  const given = await problem();
  assert.equal(operation.choose(gpu, given).name, "usual");
  const never = { ...doubling("never", 1), supports: () => false };
  const other = defineOperation({
    ...operation,
    name: "test rule",
    candidates: [never, doubling("able", 1)],
    rule: () => "never",
  });
  assert.equal(other.choose(gpu, given).name, "able");
  withCandidate(gpu, "best", () => assert.equal(operation.choose(gpu, given).name, "best"));
  withCandidate(gpu, "unknown", () => assert.equal(operation.choose(gpu, given).name, "usual"));
  assert.throws(() => defineOperation({ ...operation }), /There are two operations "test doubling"/);
});

test("setChoices() is for one GPU and one class, and passes over what does not exist or cannot serve", async () => {
  const { gpu } = await device();
  const given = await problem();
  const choices = {
    "test doubling": { "50000": "best", "7": "not for this device", "8": "gone" },
    "test nothing": { a: "b" },
  };
  setChoices(gpu, choices);
  assert.equal(operation.choose(gpu, given).name, "best");
  assert.equal(operation.choose(gpu, await problem(9)).name, "usual");
  assert.equal(operation.choose(gpu, await problem(7)).name, "usual");
  assert.equal(operation.choose(gpu, await problem(8)).name, "usual");
  const [other] = dryDevices(1);
  assert.equal(operation.choose(other.gpu, given).name, "usual");
  setChoices(gpu, {});
  assert.equal(operation.choose(gpu, given).name, "usual");
});

test("calibrate() takes the fastest candidate that is right, names what it dropped, and keeps the choice on disk", async () => {
  const on = await device();
  const given = await problem();
  const cache = join(folder, "first");
  const { results, known, choices } = await calibrate([on], [{ operation, problem: given }, {
    operation,
    problem: given,
  }], { cache });
  assert.equal(results.length, 1, "one problem of each class");
  const [{ candidates, usual, best }] = results;
  assert.deepEqual([usual, best, known], ["usual", "best", 0]);
  const dropped = Object.fromEntries(candidates.map(({ name, dropped }) => [name, dropped]));
  assert.match(dropped.wrong!, /wrong/);
  assert.match(dropped["subtly wrong"]!, /wrong by 0\.00\d+ where results reach/);
  assert.match(dropped["does not compile"]!, /nowhere/);
  assert.match(dropped.throws!, /cannot be recorded/);
  assert.deepEqual(candidates.filter((each) => each.times).map(({ name }) => name), ["reference", "usual", "best"]);
  assert.ok(!candidates.some(({ name }) => name === "not for this device"));
  assert.equal(operation.choose(on.gpu, given).name, "best");

  setChoices(on.gpu, {});
  const again = await calibrate([on], [{ operation, problem: given }], { cache });
  assert.deepEqual([again.results.length, again.known, again.choices], [0, 1, choices]);
  assert.equal(operation.choose(on.gpu, given).name, "best");
  assert.deepEqual(readdirSync(cache).length, 1, "one file, and no temporary one");
  setChoices(on.gpu, {});
});

test("calibrate() measures anew where the file is damaged, of another device, or names a candidate that is gone", async () => {
  const on = await device();
  const given = [{ operation, problem: await problem() }];
  const cache = join(folder, "damaged");
  const patience = { cache, rounds: 1, turnMs: 0.1 };
  await calibrate([on], given, patience);
  const file = join(cache, readdirSync(cache)[0]);
  const whole = readFileSync(file, "utf8");
  const key = choiceKey(on.gpu.info);
  const damages = [
    whole.slice(0, whole.length / 2),
    "",
    "[]",
    whole.replace('"schema": 1', '"schema": 2'),
    whole.replace(JSON.stringify(key), '"another device"'),
    whole.replace(/"50000": "\w+"/, '"50000": 3'),
    whole.replace(/"50000": "\w+"/, '"50000": "gone"'),
  ];
  for (const damage of damages) {
    assert.notEqual(damage, whole);
    writeFileSync(file, damage);
    assert.equal((await calibrate([on], given, patience)).results.length, 1, damage);
    assert.notDeepEqual(readChoices(cache, key), {}, damage);
  }
  assert.deepEqual(readChoices(cache, "another key"), {});
  setChoices(on.gpu, {});
});

test("choices are good for one adapter, driver and subgroup size", async () => {
  const { info } = (await device()).gpu;
  const others = [{ ...info, identity: info.identity + " 2" }, { ...info, subgroupSize: info.subgroupSize * 2 }];
  for (const other of others) assert.notEqual(choiceKey(other), choiceKey(info));
  assert.equal(choiceKey({ ...info }), choiceKey(info));
  const cache = join(folder, "keys");
  writeChoices(cache, choiceKey(info), { a: { b: "c" } });
  assert.deepEqual(readChoices(cache, choiceKey(info)), { a: { b: "c" } });
  for (const other of others) assert.deepEqual(readChoices(cache, choiceKey(other)), {});
});

test("a cache folder that cannot be written only means measuring again", () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  writeChoices(join(file, "below"), "key", {});
  assert.ok(!existsSync(join(file, "below")));
});

test("calibrate() without a cache reads and writes nothing", async () => {
  const on = await device();
  const given = [{ operation, problem: await problem() }];
  for (let i = 0; i < 2; i++) {
    assert.equal((await calibrate([on], given, { cache: false, rounds: 1, turnMs: 0.1 })).results.length, 1);
  }
  setChoices(on.gpu, {});
});

test("candidates are compared by the whole numbers, too, that they write", async () => {
  const on = await device();
  const images = (size: number, dtype?: "u32") => empty(on, [2, size, size, 4], "workspace", dtype);
  const [observed] = await observeProblems(on.gpu, () => {
    maxPool(images(4), images(4, "u32"), images(8), { size: 2, stride: 2, padding: 0 });
  });
  const { candidates } = await measureCandidates(on, observed, { rounds: 1, turnMs: 0.1 });
  assert.deepEqual(candidates.map(({ name, dropped }) => [name, dropped]), [
    ["plain", undefined],
    ["vec4", undefined],
    ["group", undefined],
  ]);
});

test("observeProblems() sees one problem of each class, and only while the work lasts", async () => {
  const on = await device();
  const square = (n: number) => dirty(on, [n, n]);
  const seen = await observeProblems(on.gpu, () => {
    for (const n of [64, 64, 60, 16]) matmul(square(n), square(n), square(n));
  });
  fill(square(4), 1);
  matmul(square(256), square(256), square(256));
  assert.deepEqual(seen.map(({ operation, problem }) => operation.classOf(problem)), [
    "64x64x64 NN f32 f32 f32 1",
    "16x16x16 NN f32 f32 f32 1",
  ]);
});

test("two GPUs do not see each other's forced candidates, observers and choices", async () => {
  const [one, other] = dryDevices(2);
  const on = (device: Device) => ({
    out: empty(device, [9], "workspace"),
    nested: [{ x: empty(device, [9], "workspace") }],
  });
  const nameOn = (device: Device) => operation.choose(device.gpu, on(device)).name;
  withCandidate(one.gpu, "best", () => {
    assert.deepEqual([nameOn(one), nameOn(other)], ["best", "usual"]);
    withCandidate(other.gpu, "reference", () => assert.deepEqual([nameOn(one), nameOn(other)], ["best", "reference"]));
  });
  assert.deepEqual([nameOn(one), nameOn(other)], ["usual", "usual"]);
  setChoices(other.gpu, { "test doubling": { "9": "best" } });
  assert.deepEqual([nameOn(one), nameOn(other)], ["usual", "best"]);
  const run = (device: Device, size: number) => fill(empty(device, [size], "workspace"), 1);
  const seen = await Promise.all(
    [[one, 64], [other, 1024]].map(([device, size]) =>
      observeProblems((device as Device).gpu, async () => {
        await Promise.resolve(); // both watch by now
        run(device as Device, size as number);
      })
    ),
  );
  assert.deepEqual(seen.map((each) => each.map((one) => one.operation.classOf(one.problem))), [["1x64 f32"], [
    "1x1024 f32",
  ]]);
});

test("candidates forced for a while hold through waits, on all their GPUs, and end whatever else was forced meanwhile", async () => {
  const devices = dryDevices(2);
  const names = () =>
    devices.map((device) =>
      operation.choose(device.gpu, { out: empty(device, [9], "workspace"), nested: [] } as never).name
    );
  let end = () => {};
  const first = withCandidates(devices.map(({ gpu }) => gpu), ["unknown", "best", "reference"], async () => {
    assert.deepEqual(names(), ["best", "best"], "the earlier name that exists");
    await new Promise<void>((resolve) => end = resolve);
    assert.deepEqual(names(), ["reference", "best"]);
  });
  let endSecond = () => {};
  const second = withCandidates(
    [devices[0].gpu],
    ["reference"],
    () => new Promise<void>((resolve) => endSecond = resolve),
  );
  assert.deepEqual(names(), ["reference", "best"], "the latest goes before");
  end();
  await first;
  assert.deepEqual(names(), ["reference", "usual"]);
  endSecond();
  await second;
  await assert.rejects(
    withCandidates(devices.map(({ gpu }) => gpu), ["best"], () => Promise.reject(new Error("no"))),
    /no/,
  );
  assert.deepEqual(names(), ["usual", "usual"]);
});

test("problemsOf() finds the problems of a training step without a device", async () => {
  const { gpu } = await device();
  assert.ok(gpu instanceof Gpu);
  const problems = await problemsOf(createModel("llama-tiny"), 4, gpu);
  const classes = problems.filter(({ operation }) => operation === matmulOperation)
    .map(({ operation, problem }) => operation.classOf(problem));
  for (const transposes of ["NN", "NT", "TN"]) assert.ok(classes.some((each) => each.includes(transposes)), transposes);
  assert.equal(new Set(classes).size, classes.length);
  const wide = await problemsOf(createModel("llama-tiny"), 4, gpu, { width: 4 });
  assert.ok(wide.some(({ operation, problem }) => operation.classOf(problem).startsWith("128x128x1024 TN")));
});
