import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Sums } from "../../lib/layers/sums.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline, type Precision } from "../../lib/runtime/pipeline.ts";
import type { RecomputePolicy } from "../../lib/runtime/recompute.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { type Calls, countCalls } from "./calls.ts";
import { deep, randomBatch, tinyModel } from "./support.ts";

let set: DeviceSet;
let counted: () => Calls;
before(async () => {
  set = await openDevices(2);
  counted = countCalls(set);
});
after(() => set.close());

const base = generate("1f1b-2", { devices: 2 });
const schedules = [base, twoStage(base, { policy: "fill", width: 2 })];

/** What a steady step of a schedule on two ranks, with one stage each and timestamps, comes to. */
function expected(
  schedule: Schedule,
  { tied, timestamps }: { tied: number; timestamps: boolean },
): Calls {
  const { actions } = schedule, { microbatches } = sizesOf(schedule);
  const recorded = actions.flat().length + actions.length; // one submission for each action and each optimizer
  // An activation and its gradient for each micro-batch, and the gradients of parameters that are tied across the ranks; copies
  // of the former go with their actions, of the latter with the look at the gradients; what comes is added to what is there in
  // the submission of the optimizer.
  const messages = 2 * microbatches + 2 * tied;
  const sums = 2 * tied;
  const loss = 1; // read on the last rank, with the last forward
  const looks = actions.length; // at the gradients of each rank; what they find is read with the same submission
  const norm = Math.min(tied, 1); // of gradients that are summed up: the rank of the original reads it with the optimizer
  const times = timestamps ? actions.length : 0; // read once a rank
  const submits = recorded + looks + times;
  return {
    buffers: 0,
    bindGroups: 0,
    compiled: 0,
    encoders: submits,
    passes: recorded + sums + looks,
    submits,
    maps: messages + loss + looks + norm + times,
    idles: actions.length,
  };
}

for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"]) {
  test(`${name}: a steady step makes nothing, records one pass and one submission an action, and waits only for messages, the loss and the end`, async () => {
    const { f16, timestamps } = set.devices[0].gpu.info;
    const variants: [Precision, RecomputePolicy, Sums][] = [["f32", "none", "i"], ["f32", "none", "w"]];
    if (f16) variants.push(["mixed", "none", "i"]);
    if (name === "llama-tiny") variants.push(["f32", "both:1", "i"]);
    for (const [precision, recompute, sums] of variants) {
      const model = createModel(name);
      const pipeline = createPipeline(set, model, { optimizer: adamw(), precision, recompute, sums });
      const { source } = sourceFor(model, undefined, 3);
      for (const schedule of schedules) {
        const tied = model.tied?.length ?? 0; // the first and the last layer
        const wanted = expected(schedule, { tied, timestamps });
        const what = `${precision}, recompute ${recompute}, sums in ${sums}, ${schedule.policy ?? "without 2BP"}`;
        for (let step = 1; step <= 4; step++) {
          counted();
          const { loss } = await pipeline.step(schedule, await source.next(sizesOf(schedule).microbatches));
          assert.ok(loss > 0);
          const calls = counted();
          if (step > 2) assert.deepEqual(calls, wanted, `${what}, step ${step}`);
        }
      }
      pipeline.close();
    }
  });
}

test("a steady step of two replicas makes nothing new for its sums either", async () => {
  const four = await openDevices(4, { virtual: false }), count = countCalls(four);
  const schedule = schedules[1], { microbatches } = sizesOf(schedule);
  const messages = 2 * 2 * microbatches; // activations and gradients, in each replica
  const sums = 4 * 2; // of each device's one block: a half to the other, and the sum of its own half, or the parameters
  const reads = 2 + 4 + (four.devices[0].gpu.info.timestamps ? 4 : 0); // losses of each replica, looks, times
  const wanted = { buffers: 0, bindGroups: 0, compiled: 0, maps: messages + sums + reads };
  for (const shardOptimizer of [false, true]) {
    const pipeline = createPipeline(four, tinyModel(deep), { optimizer: adamw(), replicas: 2, shardOptimizer });
    const seen: Partial<Calls>[] = [];
    // How many messages are on their way at once, and need a buffer each, is a matter of time: one step that needs no more will do.
    while (seen.length < 12) {
      count();
      await pipeline.step(schedule, randomBatch(deep, 2 * microbatches, seen.length));
      const { buffers, bindGroups, compiled, maps } = count();
      seen.push({ buffers, bindGroups, compiled, maps });
      if (buffers === 0) break;
    }
    assert.deepEqual(seen.at(-1), wanted);
    pipeline.close();
  }
  four.close();
});
