import assert from "node:assert/strict";
import { test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Gpu } from "../../lib/gpu/gpu.ts";
import { kernel } from "../../lib/gpu/kernel.ts";
import { llama } from "../../lib/models/llama.ts";
import { fill } from "../../lib/ops/elementwise.ts";
import { createPipeline, type PipelineOptions } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { empty, release, toArray } from "../../lib/tensor.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const bytes = new TextEncoder().encode("to be or not to be, ".repeat(50));

/** A small model whose shapes are like no other's. */
function shaped(index: number) {
  const configuration = { vocabulary: 256, width: 32, blocks: 1, heads: 2, hidden: 32 + 4 * index, length: 8 + index };
  return { model: llama(`shape ${index}`, configuration), source: textSource(bytes, { length: 8 + index, seed: 1 }) };
}

async function train(set: DeviceSet, index: number, steps: number, options: Partial<PipelineOptions> = {}) {
  const { model, source } = shaped(index);
  const pipeline = createPipeline(set, model, { optimizer: adamw(), ...options });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) losses.push((await pipeline.step(schedule, source.next(4))).loss);
  pipeline.close();
  return losses;
}

/** Buffers and query sets that exist, of those made from now on. */
function countObjects(gpus: Iterable<Gpu>): () => number {
  let alive = 0;
  for (const { device } of gpus) {
    for (const name of ["createBuffer", "createQuerySet"] as const) {
      const make = device[name].bind(device) as (descriptor: unknown) => GPUBuffer;
      const counted = (descriptor: unknown) => {
        const made = make(descriptor);
        const destroy = made.destroy.bind(made);
        let isDestroyed = false;
        alive++;
        Object.defineProperty(made, "destroy", {
          value: () => {
            if (!isDestroyed) alive--;
            isDestroyed = true;
            destroy();
          },
        });
        return made;
      };
      Object.defineProperty(device, name, { value: counted, configurable: true });
    }
  }
  return () => alive;
}

for (const virtual of [false, true]) {
  test(`a pipeline that closes gives back every buffer that its shapes cached, ${virtual ? "virtual" : "real"}`, async () => {
    const set = await openDevices(2, { virtual });
    try {
      const alive = countObjects(new Set(set.devices.map(({ gpu }) => gpu)));
      for (let index = 0; index < 8; index++) {
        await train(set, index, 1, index % 2 ? { budget: 2 ** 28 } : {});
        assert.equal(alive(), 0, `after shape ${index}`);
      }
      set.devices.forEach(({ ledger, pool }) => assert.deepEqual([ledger.total(), pool.slack()], [0, 0]));
    } finally {
      set.close();
    }
  });
}

test("a pipeline may close while another is in a step, whose loss keeps every bit", async () => {
  const set = await openDevices(2);
  try {
    const alone = await train(set, 5, 6);
    const { model, source } = shaped(5);
    const pipeline = createPipeline(set, model, { optimizer: adamw() });
    for (const [step, expected] of alone.entries()) {
      const other = createPipeline(set, shaped(step).model, { optimizer: adamw() });
      await other.step(schedule, shaped(step).source.next(4));
      const running = pipeline.step(schedule, source.next(4));
      await new Promise((later) => setTimeout(later, step)); // another moment of the step each time
      other.close();
      assert.equal((await running).loss, expected, `step ${step}`);
    }
    pipeline.close();
  } finally {
    set.close();
  }
});

test("what is recorded, or finished and not submitted, keeps its uniforms and buffers", async () => {
  const set = await openDevices(1);
  try {
    const [device] = set.devices;
    const [a, b, c] = [1, 2, 3].map(() => empty(device, [64], "activations"));
    fill(a, 7);
    const commands = device.finish();
    fill(b, 8);
    release(c); // free, and not used by the recording
    device.releaseCaches();
    fill(b, 8); // as before, with another uniform block
    device.submit();
    device.releaseCaches();
    device.submit(commands);
    assert.deepEqual([(await toArray(a))[63], (await toArray(b))[63]], [7, 8]);
    release(a, b);
    await device.idle();
  } finally {
    set.close();
  }
});

test("of hundreds of compiled kernels those used last are kept", async () => {
  const set = await openDevices(1);
  try {
    const [device] = set.devices;
    const tensor = empty(device, [4], "workspace");
    let compiled = 0;
    const { device: gpu } = device.gpu;
    const create = gpu.createComputePipeline.bind(gpu);
    Object.defineProperty(gpu, "createComputePipeline", {
      value: (descriptor: GPUComputePipelineDescriptor) => (compiled++, create(descriptor)),
    });
    const use = (index: number) => {
      device.dispatch({ ...kernel("elementwise", "fill"), id: `fill ${index}` }, { count: 4, value: 0 }, [tensor], [1]);
    };
    for (let index = 0; index < 300; index++) {
      use(index);
      if (index % 50 === 49) device.releaseCaches();
    }
    await device.idle();
    compiled = 0;
    use(299);
    use(60);
    assert.equal(compiled, 0);
    use(0);
    assert.equal(compiled, 1);
    await device.idle();
    release(tensor);
  } finally {
    set.close();
  }
});
