/**
 * The kernels and a training step in headless Chromium: WebGPU as browsers have it, with their limits and validation. Every candidate
 * of every operation is compiled in a page and compared by value, and a small pipeline is compared with float64 code. `deno run -A
 * --no-check .ci/browser.ts`; Linux x86-64, where the npm package `@sparticuz/chromium` has a browser.
 */
import process from "node:process";
import { Device } from "../lib/gpu/device.ts";
import type { DeviceSet } from "../lib/gpu/devices.ts";
import { kernel } from "../lib/gpu/kernel.ts";
import { checkKernels } from "../lib/measure/doctor/kernels.ts";
import { standardProblems } from "../lib/measure/standard_problems.ts";
import { createPipeline } from "../lib/runtime/pipeline.ts";
import { generate } from "../lib/schedules/generators/generate.ts";
import { twoStage } from "../lib/schedules/transforms/two_stage.ts";
import { empty, release } from "../lib/tensor.ts";
import { sgd } from "../lib/train/optimizers.ts";
import { llamaLoss } from "../tests/reference/llama.ts";
import { randomBatch, tiny, tinyModel } from "../tests/runtime/support.ts";
import { openPage } from "./browser/chromium.ts";
import { remoteGpu } from "./browser/remote_gpu.ts";

if (process.platform !== "linux" || process.arch !== "x64") {
  console.log(`Skipped: there is no Chromium in the package for ${process.platform} ${process.arch}.`);
  process.exit(0);
}
const page = await openPage();
let wrong = 0;
const fail = (what: string) => {
  wrong++;
  console.log(`WRONG: ${what}`);
};
try {
  const gpu = await remoteGpu(page);
  if (!gpu) throw new Error("Chromium finds no WebGPU adapter, though it brings SwiftShader along");
  const { info } = gpu;
  console.log(`Chromium, ${info.identity}: subgroups of ${info.subgroupSize}, ${info.f16 ? "f16" : "no f16"}`);
  const devices = [0, 1].map((rank) => new Device(rank, gpu));

  // Or nothing below could fail.
  const wgsl =
    "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n@compute @workgroup_size(1)\nfn bad() { y[0] = 1u; }";
  const out = empty(devices[0], [1], "workspace");
  devices[0].dispatch(kernel({ wgsl, entry: "bad" }), undefined, [out], [1]);
  const told = await devices[0].idle().then(() => "nothing", ({ message }) => message);
  if (!/kernel "bad":3: .*u32/.test(told)) fail(`of a kernel that does not compile is said: ${told}`);
  devices[0].abandon();
  release(out);

  for (const dtype of info.f16 ? ["f32", "f16"] as const : ["f32"] as const) {
    const problems = await standardProblems(gpu, dtype, "small");
    const { checked, faults, ms } = await checkKernels(devices[0], problems);
    console.log(`${checked} candidates of ${problems.length} problems in ${dtype}, ${(ms / 1000).toFixed(0)} s`);
    for (const { operation, candidate, problemClass, problem } of faults) {
      fail(`${candidate} of ${operation} (${problemClass}): ${problem}`);
    }
    if (checked < 2 * problems.length) fail(`only ${checked} candidates were looked at`);
  }

  const set: DeviceSet = {
    mode: "virtual",
    devices,
    adapter: info.name,
    driver: info.driver,
    close: () => gpu.close(),
  };
  const pipeline = createPipeline(set, tinyModel(), { optimizer: sgd({ learningRate: 0.1 }), seed: 5 });
  const batch = randomBatch(tiny, 4), schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  for (let step = 0; step < 3; step++) {
    const values = new Map([...await pipeline.parameters()].map(([name, array]) => [name, Float64Array.from(array)]));
    const expected = llamaLoss(tiny, values, batch), { loss } = await pipeline.step(schedule, batch);
    console.log(`A step of a LLaMa on two ranks: loss ${loss}, in float64 ${expected}`);
    if (!(Math.abs(loss - expected) < 1e-5 * expected)) fail(`the loss of step ${step}`);
  }
  pipeline.close();
  set.close();
} finally {
  await page.close();
}
process.exit(wrong > 0 ? 1 : 0);
