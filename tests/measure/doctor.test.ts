import assert from "node:assert/strict";
import process from "node:process";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { kernel } from "../../lib/gpu/kernel.ts";
import { diagnose } from "../../lib/measure/doctor/diagnose.ts";
import { checkKernels } from "../../lib/measure/doctor/kernels.ts";
import { apart, checkStep, wrong } from "../../lib/measure/doctor/step.ts";
import { checkValues } from "../../lib/measure/doctor/values.ts";
import { standardProblems } from "../../lib/measure/standard_problems.ts";
import { type Candidate, defineOperation, type Observed, observeProblems } from "../../lib/ops/choice.ts";
import { fill, scale } from "../../lib/ops/elementwise.ts";
import { empty, type Tensor } from "../../lib/tensor.ts";

let opened: Promise<DeviceSet> | undefined;
const open = () => opened ??= openDevices(2, { virtual: true });
after(async () => (await opened)?.close());

/** Has a device leave out kernels, as a driver would that computes nothing and says nothing, while `work` lasts. */
async function without<T>(
  device: Device,
  isLeftOut: (...args: Parameters<Device["dispatch"]>) => boolean,
  work: () => Promise<T>,
) {
  const { dispatch } = device;
  device.dispatch = (...args) => isLeftOut(...args) ? undefined : dispatch.apply(device, args);
  try {
    return await work();
  } finally {
    device.dispatch = dispatch;
  }
}

test("numbers are the host's, and a driver is found out that leaves f16 at zero or f32 as it was", async () => {
  const { devices: [device] } = await open();
  const right = await checkValues(device);
  assert.deepEqual(right.filter(({ problem }) => problem), []);
  assert.equal(right.length, device.gpu.info.f16 ? 6 : 3);
  for (const dtype of device.gpu.info.f16 ? ["f16", "f32"] : ["f32"]) {
    const isLeftOut = (...[, , [out]]: Parameters<Device["dispatch"]>) => (out.dtype ?? "f32") === dtype;
    const found = await without(device, isLeftOut, () => checkValues(device));
    assert.deepEqual(found.filter(({ problem }) => problem).map((each) => each.dtype), [dtype, dtype, dtype]);
    for (const { problem = "nothing is written" } of found) assert.equal(problem, "nothing is written");
  }
});

test("a step is right that learns a batch by heart with and without 2BP, and wrong where a kernel computes nothing", async () => {
  const set = await open();
  const right = await checkStep(set);
  assert.deepEqual([right.problem, right.mixedProblem], [undefined, undefined]);
  assert.ok(right.losses[0] > right.losses[3] + 0.2 && right.ms > 0);
  assert.equal(right.mixedLosses?.length, set.devices[0].gpu.info.f16 ? 4 : undefined);
  // Virtual devices record on one rank each.
  const isUpdate = ({ name }: { name: string }) => name.startsWith("optimizers");
  const { problem } = await without(
    set.devices[0],
    isUpdate,
    () => without(set.devices[1], isUpdate, () => checkStep(set)),
  );
  assert.match(problem!, /^the loss does not fall/);
  const throws = () => {
    throw new Error("a driver's reason\nand more of it");
  };
  assert.equal((await without(set.devices[1], throws, () => checkStep(set))).problem, "a driver's reason");
});

test("losses are wrong that begin elsewhere, do not fall, are no numbers, or are not the other step's", () => {
  assert.equal(wrong([5.6, 5.1, 4.4]), undefined);
  assert.equal(wrong([0, 0, 0]), "the loss begins at 0.000, not near 5.545");
  assert.match(wrong([5.545, 5.545, 5.545])!, /^the loss does not fall .*: 5\.545 to 5\.545$/);
  assert.match(wrong([5.6, 5.1, NaN])!, /does not fall/);
  assert.match(wrong([NaN, NaN])!, /begins at NaN/);
  assert.equal(apart([5.6, 5.1], [5.601, 5.1], 1e-3, "without 2BP"), undefined);
  assert.equal(apart([5.6, 5.1], [5.6, 5.2], 1e-3, "in f32"), "the loss of step 2 is 5.1000, and 5.2000 in f32");
  assert.match(apart([5.6, NaN], [5.6, 5.1], 1e-3, "in f32")!, /^the loss of step 2 is NaN/);
});

interface Doubling {
  out: Tensor;
  x: Tensor;
}

const candidate = (name: string, record: Candidate<Doubling>["record"]): Candidate<Doubling> => ({
  name,
  supports: () => true,
  record,
});
const doubled = candidate("twice", ({ out, x }) => scale(out, x, 2));
const zeros = candidate("zeros", ({ out }) => fill(out, 0));
const nothing = candidate("nothing", () => {});

function doubling(name: string, ...candidates: Candidate<Doubling>[]) {
  return defineOperation<Doubling>({
    ...{ name, candidates, classOf: ({ out }) => `${out.shape}`, rule: () => candidates.at(-1)!.name },
    outputs: ({ out }) => [out],
  });
}

const planted = {
  zeros: doubling("test gives zeros", doubled, zeros, candidate("same", doubled.record)),
  usual: doubling("test gives nearly that", doubled, candidate("2.001", ({ out, x }) => scale(out, x, 2.001))),
  broken: doubling(
    "test does not compile",
    doubled,
    candidate(
      "nowhere",
      ({ out }) => out.device.dispatch(kernel("elementwise", "no"), { count: 1, value: 0 }, [out], [1]),
    ),
    doubled,
  ),
  zeroReference: doubling("test has zeros for a reference", zeros),
  idle: doubling("test writes nothing", nothing, candidate("too", nothing.record)),
};

test("kernels that give zeros, nearly the right numbers or nothing, or do not compile, are found, and the right ones pass", async () => {
  const { devices: [device] } = await open();
  const make = () => empty(device, [100], "workspace");
  const problems: Observed[] = Object.values(planted).map((operation) => ({
    operation,
    problem: { out: make(), x: make() },
  }));
  problems.push(...await observeProblems(device.gpu, () => fill(make(), 0))); // zeros that are made of nothing
  let calls = 0;
  const { faults, checked, left } = await checkKernels(device, problems, { onProblem: () => void calls++ });
  assert.deepEqual(faults.map(({ operation, candidate }) => [operation, candidate]), [
    ["test gives nearly that", "2.001"],
    ["test has zeros for a reference", "zeros"],
    ["test writes nothing", "nothing"],
    ["test gives zeros", "zeros"],
    ["test does not compile", "nowhere"],
  ]);
  for (const index of [0, 3]) assert.match(faults[index].problem, /^wrong by [\d.]+ where results reach/);
  assert.equal(faults[1].problem, "wrong: all results are 0");
  assert.equal(faults[2].problem, "wrong: nothing is written");
  assert.match(faults[4].problem, /^Rank 0 /);
  assert.deepEqual(faults.map(({ usual, reference }) => [usual, reference]), [
    [true, false],
    [true, true],
    [false, true],
    [false, false],
    [false, false],
  ]);
  assert.deepEqual([left, calls], [0, 2 * problems.length]);
  assert.ok(checked >= 9);
  const late = await checkKernels(device, problems.slice(0, 1), { limitMs: 0 });
  assert.deepEqual([late.checked, late.left], [2, 1], "what a run takes is looked at however long it takes");
});

test("a device that is lost fails once, and not for each kernel", async () => {
  const lost = await openDevices(1), [device] = lost.devices;
  const problems = await observeProblems(device.gpu, () => {
    for (const size of [64, 1024, 9000]) fill(empty(device, [size], "workspace"), 1);
  });
  device.gpu.device.destroy();
  const { faults, checked, left } = await checkKernels(device, problems);
  assert.deepEqual(faults.map(({ reference }) => reference), [true]);
  assert.match(faults[0].problem, /device lost/);
  assert.ok(checked <= 1 && checked + left === 3);
  lost.close();
});

test("kernels of this project are right on this device, those that a run takes of some operations", async () => {
  const { devices: [device] } = await open();
  const problems = (await standardProblems(device.gpu, "f32", "small"))
    .filter(({ operation }) => ["rmsNorm", "swiglu", "fill", "add", "look"].includes(operation.name));
  const { faults, checked } = await checkKernels(device, problems);
  assert.deepEqual(faults, []);
  assert.ok(checked > 8, `${checked}`);
});

test("a quick diagnosis of this machine says that training works, and on which of its drivers", async () => {
  const doing: string[] = [];
  const { works, devices, drivers, values, step, passing, kernels, rates, surroundings, findings } = await diagnose({
    depth: "quick",
    onProgress(done, what) {
      assert.ok(done >= 0 && done <= 1);
      doing.push(what);
    },
  });
  assert.equal(works, true);
  assert.equal(findings.some(({ kind }) => kind === "fault"), false);
  assert.equal(
    surroundings.runtimes.find(({ here }) => here)!.version,
    process.versions.deno ?? process.versions.bun ?? process.versions.node,
  );
  const inUse = drivers.find(({ driver }) => driver === devices!.driver)!;
  assert.equal(inUse.adapter!.name, devices!.adapter);
  for (const { adapter, missing } of drivers) assert.equal(adapter === undefined, missing !== undefined);
  assert.ok(values!.length >= 3 && step!.problem === undefined && passing!.smallMessage > 0);
  assert.deepEqual([kernels, rates], [undefined, undefined]);
  assert.ok(doing.includes("training steps"));
});

test("diagnose() says what it cannot open, and does not throw; an option that is none it refuses", async () => {
  const before = process.env.TWOBP_DRIVER;
  process.env.TWOBP_DRIVER = "vulkan";
  try {
    const { works, devices, problem, drivers, findings: [first] } = await diagnose({
      depth: "quick",
      crashed: ["gpu", "bundled"],
    });
    assert.deepEqual(
      drivers.filter(({ missing = "" }) => /crashed/.test(missing)).map(({ driver }) => driver),
      drivers.map(({ driver }) => driver).filter((driver) => driver !== "system"),
    );
    assert.deepEqual([works, devices], [false, undefined]);
    assert.equal(problem, 'TWOBP_DRIVER is "vulkan", but must be one of gpu, system, bundled');
    assert.equal(first.kind, "fault");
    assert.match(first.remedy, /^Unset TWOBP_DRIVER \(it is "vulkan"\)/);
  } finally {
    if (before === undefined) delete process.env.TWOBP_DRIVER;
    else process.env.TWOBP_DRIVER = before;
  }
  await assert.rejects(diagnose({ depth: "deep" as "quick" }), {
    name: "UserError",
    message: 'diagnose: depth must be one of "quick", "usual", "all", not "deep"',
  });
});
