/**
 * Deno's own WebGPU in place of Dawn: another compiler of WGSL (naga) and other code behind every call (wgpu). What computes is
 * run where the environment asks for it, since a process looks for drivers once: `TWOBP_WEBGPU=deno deno test -A` of this file.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { after, test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { kernel } from "../../lib/gpu/kernel.ts";
import { createTimer } from "../../lib/gpu/timing.ts";
import { checkKernels } from "../../lib/measure/doctor/kernels.ts";
import { standardProblems } from "../../lib/measure/standard_problems.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { empty, release } from "../../lib/tensor.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { assertSameGradients } from "../runtime/support.ts";
import { start } from "../spawn.ts";

const isAsked = process.env.TWOBP_WEBGPU === "deno" && process.versions.deno !== undefined;
const sets: Record<"one" | "separate" | "usual", DeviceSet | undefined> = {
  ...{ one: undefined, separate: undefined, usual: undefined },
};
let skip: string | false = isAsked ? false : "TWOBP_WEBGPU is not deno";
if (isAsked) {
  try {
    sets.one = await openDevices(1);
    sets.separate = await openDevices(2, { virtual: false });
    sets.usual = await openDevices(2);
  } catch (error) {
    // A machine without a Vulkan driver; that there is one and it does not serve is no reason.
    if (!/no adapter that it can use|no Vulkan loader/.test(`${error}`)) throw error;
    skip = `${error}`;
  }
}
after(() => Object.values(sets).forEach((set) => set?.close()));

test("TWOBP_WEBGPU names an implementation that is there, or what is wrong is said in one line", async () => {
  const { TWOBP_WEBGPU } = process.env;
  const refused = async (value: string, message: string | RegExp) => {
    process.env.TWOBP_WEBGPU = value;
    try {
      await assert.rejects(openDevices(1), { name: "UserError", message });
    } finally {
      if (TWOBP_WEBGPU === undefined) delete process.env.TWOBP_WEBGPU;
      else process.env.TWOBP_WEBGPU = TWOBP_WEBGPU;
    }
  };
  await refused("wgpu", 'TWOBP_WEBGPU is "wgpu", but must be one of dawn, deno');
  if (!process.versions.deno) {
    return await refused(
      "deno",
      "TWOBP_WEBGPU is deno, but this is not Deno: unset it, or run the program with deno run",
    );
  }
  const { gpu } = navigator as Navigator & { gpu?: GPU };
  Object.defineProperty(navigator, "gpu", { value: undefined, configurable: true });
  try {
    await refused(
      "deno",
      /^TWOBP_WEBGPU is deno, but Deno \S+ has its WebGPU turned off: run it with --unstable-webgpu/,
    );
  } finally {
    delete (navigator as { gpu?: GPU }).gpu; // the prototype's shows again
    assert.equal((navigator as { gpu?: GPU }).gpu, gpu);
  }
});

test("a command that is asked for no implementation ends with exit code 2", async () => {
  const { code, stderr } = await start("bench/main.ts", ["--repeats", "1"], { TWOBP_WEBGPU: "wgpu" }).done;
  assert.equal(code, 2, stderr);
  assert.match(stderr, /TWOBP_WEBGPU is "wgpu", but must be one of dawn, deno/);
});

test("all devices are on the one adapter: virtual unless they are asked for as separate ones", { skip }, () => {
  const { usual, separate } = sets;
  assert.equal(usual!.mode, "virtual");
  assert.equal(usual!.notice, "2 devices asked for, and Deno's WebGPU has one adapter: the devices are virtual");
  const [first, second] = separate!.devices;
  assert.notEqual(first.gpu, second.gpu);
  const { implementation, subgroupSize, identity } = first.gpu.info;
  assert.deepEqual([implementation, subgroupSize], ["deno", 0]);
  assert.match(identity, /in Deno's WebGPU$/); // choices measured under Dawn are not for it
});

test("kernels that do not compile are named by line, as Dawn's are", { skip }, async () => {
  const [device] = sets.one!.devices;
  const cases = [
    ["y[id.x] = 1u;", /automatic conversions cannot convert elements of `u32` to `f32`: y\[id\.x\] = 1u;$/],
    ["var a: array<f32, 4>; y[id.x] = a[7];", /Accessing index \d+ is out of \[?\d+\]? bounds: var a.*;$/],
  ] as const;
  for (const [wrong, message] of cases) {
    const wgsl = `@group(0) @binding(0) var<storage, read_write> y: array<f32>;
      @compute @workgroup_size(64)
      fn wrong(@builtin(global_invocation_id) id: vec3u) {
        ${wrong}
      }`;
    const y = empty(device, [64], "workspace");
    device.dispatch(kernel({ wgsl, entry: "wrong" }), undefined, [y], [1]);
    await assert.rejects(device.idle(), (error: Error) => {
      assert.match(error.message, message);
      assert.match(error.message, /kernel "wrong":4: /);
      return true;
    });
    device.abandon();
    release(y);
  }
});

test("timestamps are nanoseconds", { skip }, async () => {
  const [device] = sets.one!.devices;
  if (!device.gpu.info.timestamps) return;
  const timer = createTimer(device)!, y = empty(device, [64 * 64], "workspace");
  const probe = kernel("probe", "spin"), rounds = 2 ** 17;
  const run = () => {
    device.beginPass(timer.slot(0));
    device.dispatch(probe, { rounds }, [y], [64]);
    device.submit();
    return device.idle();
  };
  await run(); // compiles
  const from = performance.now();
  await run();
  const waited = performance.now() - from;
  const [{ start, end }] = await timer.read(1);
  assert.ok(end - start > waited / 20 && end - start <= waited, `${end - start} ms on the device, ${waited} ms here`);
  timer.close();
  release(y);
});

test(
  "every candidate of every operation that is not left out compiles and is right by value, in f32 and f16",
  { skip },
  async () => {
    const [device] = sets.one!.devices;
    for (const dtype of device.gpu.info.f16 ? ["f32", "f16"] as const : ["f32"] as const) {
      const problems = await standardProblems(device.gpu, dtype, "small");
      const { faults, checked, left } = await checkKernels(device, problems);
      assert.deepEqual(faults, []);
      assert.equal(left, 0);
      assert.ok(checked > 200, `${checked}`);
    }
  },
);

for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"]) {
  test(`${name}: a step on two devices has the loss and gradients of one pass on one`, { skip }, async () => {
    const model = createModel(name), options = { optimizer: sgd({ learningRate: 0.1 }), seed: 2 };
    const batch = await sourceFor(model, undefined, 3).source.next(4);
    // Batch normalisation looks at one micro-batch at a time: the same cut into them, for it alone.
    const cut = name === "resnet-tiny" ? { microbatches: 4 } : {};
    const run = async (set: DeviceSet, schedule: ReturnType<typeof generate>) => {
      const pipeline = createPipeline(set, model, options);
      const { loss } = await pipeline.step(schedule, batch, { optimize: false });
      const gradients = await pipeline.gradients();
      pipeline.close();
      return { loss, gradients };
    };
    const expected = await run(sets.one!, generate("naive", { devices: 1, ...cut }));
    const found = await run(sets.separate!, twoStage(generate("1f1b-1", { devices: 2, microbatches: 4 })));
    assert.ok(Math.abs(found.loss - expected.loss) <= 1e-5 * expected.loss, `${found.loss}, not ${expected.loss}`);
    assertSameGradients(found.gradients, expected.gradients, 1e-5, name);
  });
}
