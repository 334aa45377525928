/** Who makes the sums that only W reads: the same gradients both ways, and memory that is predicted to the byte. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sourceFor } from "../../bench/data.ts";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Sums } from "../../lib/layers/sums.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { RecomputePolicy } from "../../lib/runtime/recompute.ts";
import { formatSums, sumsOf, type SumsPolicy } from "../../lib/runtime/sums.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { sgd } from "../../lib/train/optimizers.ts";
import { assertClose } from "../ops/support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

const optimizer = sgd({ learningRate: 0.1 });
const microbatches = 4;
const based = (name: string) => generate(name, { devices: 2, microbatches });
const whole = based("1f1b-1");
const schedules = [
  twoStage(based("1f1b-2"), { policy: "fill" }),
  twoStage(based("gpipe"), { policy: "end", width: 4 }),
];
const models = ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"];

async function gradients(
  name: string,
  schedule: typeof whole,
  sums: SumsPolicy,
  options: { recompute?: RecomputePolicy; precision?: "mixed" } = {},
) {
  const model = createModel(name);
  const batch = await sourceFor(model, undefined, 3).source.next(microbatches);
  const pipeline = createPipeline(set, model, { optimizer, seed: 2, sums, ...options });
  assert.equal(pipeline.sums, formatSums(sums));
  const held = set.devices.map(({ ledger }) => ledger.total());
  const { loss } = await pipeline.step(schedule, batch, { optimize: false });
  assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), held, `${schedule.name} leaves memory behind`);
  const found = await pipeline.gradients();
  pipeline.close();
  return { loss, found };
}

for (const name of models) {
  test(`${name} has the same loss and gradients whoever makes the sums, and the same bits in a full backward`, async () => {
    for (const schedule of schedules) {
      const [i, w] = [await gradients(name, schedule, "i"), await gradients(name, schedule, "w")];
      assert.equal(w.loss, i.loss);
      assert.deepEqual([...w.found.keys()], [...i.found.keys()]);
      for (const [parameter, values] of i.found) assertClose(w.found.get(parameter)!, values, 1e-5, parameter);
    }
    assert.deepEqual(await gradients(name, whole, "w"), await gradients(name, whole, "i"));
  });

  test(`${name}: a prediction with sums of either knows every byte of every rank`, async () => {
    for (const sums of ["i", "w"] as const) {
      for (const schedule of schedules) {
        const options = { optimizer, sums, samples: 2, placement: schedule.placement, width: 4 };
        const stages = await stageMemories(createModel(name), options);
        const peaks = await predictMemory(createModel(name), schedule, 2, { optimizer, sums });
        assert.deepEqual(peakMemory(schedule, (stage) => stages[stage]), peaks.map(({ needed }) => needed));
      }
    }
  });
}

test("with activations recomputed the sums are still made by either, with derivatives recomputed by the I that is in W", async () => {
  const [schedule] = schedules;
  for (const name of ["llama-tiny", "mamba-tiny"]) {
    const expected = await gradients(name, schedule, "i");
    for (const recompute of ["activations", "derivatives", "both"] as const) {
      const { loss, found } = await gradients(name, schedule, "w", { recompute });
      assert.equal(loss, expected.loss);
      for (const [parameter, values] of expected.found) assertClose(found.get(parameter)!, values, 1e-5, parameter);
      if (recompute !== "activations") assert.deepEqual(found, expected.found, recompute);
    }
  }
});

test("in mixed precision the gradients are the same within its rounding", async (t) => {
  if (!set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
  for (const name of ["bert-tiny", "mamba-tiny"]) {
    const [i, w] = [
      await gradients(name, schedules[1], "i", { precision: "mixed" }),
      await gradients(name, schedules[1], "w", { precision: "mixed" }),
    ];
    assert.equal(w.loss, i.loss);
    for (const [parameter, values] of i.found) assertClose(w.found.get(parameter)!, values, 2e-3, parameter);
  }
});

test("sums in W wait where a norm's x and dy do, and only on the stages that are told so", async () => {
  const at = async (sums: SumsPolicy) => {
    const peaks = await predictMemory(createModel("llama-tiny"), schedules[0], 2, { optimizer, sums });
    return peaks.map(({ needed }) => needed);
  };
  const [i, w, first] = [await at("i"), await at("w"), await at(["w", "i"])];
  assert.ok(w[0] > i[0] && w[1] > i[1], `${w} is no more than ${i}`);
  assert.deepEqual(first, [w[0], i[1]]);
});

test("a maker that is none, or makers for other stages, are refused in one line", () => {
  assert.deepEqual(sumsOf("w", 2), ["w", "w"]);
  assert.deepEqual(sumsOf(["i", "w"], 2), ["i", "w"]);
  assert.equal(formatSums(["i", "w"]), "i/w");
  for (const wrong of ["W", ["i"], [], ["i", "w", "w"], 3, null] as unknown as Sums[]) {
    assert.throws(
      () => sumsOf(wrong, 2),
      (error: Error) =>
        error instanceof UserError &&
        /^Who makes the sums must be one of "i", "w", or a list of 2 of these, one for each stage, not /.test(
          error.message,
        ),
    );
  }
});
