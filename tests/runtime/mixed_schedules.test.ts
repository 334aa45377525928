/** Schedules with a B beside I and W of the same stage: the gradients, the ledger and the memory of any other. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { mixed, random } from "../schedules/support.ts";
import { assertSameGradients, deep, randomBatch, tinyModel } from "./support.ts";

const optimizer = sgd({ learningRate: 0.1 }), microbatches = 4;
let set: DeviceSet, single: DeviceSet;
before(async () => [set, single] = [await openDevices(2), await openDevices(1)]);
after(() => [set, single].forEach((each) => each.close()));

/** Some of each order of the zoo, a stage of which has every kind. */
function mixes(seed: number, count: number): Schedule[] {
  const next = random(seed);
  return scheduleNames.flatMap((name) => {
    const base = wholeBackward(generate(name, { devices: 2, microbatches }));
    const made: Schedule[] = [];
    while (made.length < count) {
      const schedule = mixed(base, next, 1 + made.length);
      const kinds = schedule.actions.flat().filter(({ stage }) => stage === 0).map(({ kind }) => kind);
      if (new Set(kinds).size === 4) made.push(schedule);
    }
    made.forEach(validate);
    return made;
  });
}

for (const precision of ["f32", "mixed"] as const) {
  test(`a B beside I and W of its stage gives the gradients of one full-batch pass, ${precision}`, async (t) => {
    if (precision === "mixed" && set.devices.some(({ gpu }) => !gpu.info.f16)) return t.skip("this device has no f16");
    const batch = randomBatch(deep, microbatches);
    const one = createPipeline(single, tinyModel(deep), { optimizer });
    const { loss } = await one.step(generate("naive", { devices: 1 }), batch, { optimize: false });
    const expected = await one.gradients();
    one.close();
    for (const schedule of mixes(5, 2)) {
      const pipeline = createPipeline(set, tinyModel(deep), { optimizer, precision, placement: schedule.placement });
      const before = set.devices.map(({ ledger }) => ledger.total());
      const result = await pipeline.step(schedule, batch, { optimize: false });
      const what = `${schedule.name}, width ${sizesOf(schedule).width}`;
      const [near, same] = precision === "f32" ? [1e-5, 1e-5] : [1e-4, 4e-3]; // f16 rounds by up to 5e-4, often
      assert.ok(Math.abs(result.loss - loss) <= near * loss, `${what}: loss ${result.loss}, not ${loss}`);
      assertSameGradients(await pipeline.gradients(), expected, same, what);
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), before, `${what} leaves the ledger as it was`);
      pipeline.close();
    }
    assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), [0, 0]);
  });
}

test("the memory of a mixed step is what its stages hold, to the byte", async () => {
  for (const [model, recompute] of [["llama-tiny", "none"], ["mamba-tiny", "both"], ["bert-tiny", "none"]] as const) {
    const shape = { samples: 2, optimizer: adamw(), recompute };
    for (const name of ["1f1b-2", "gpipe", "1f1b-1"]) {
      const base = generate(name, { devices: 2, microbatches }), next = random(9);
      const stages = await stageMemories(createModel(model), { ...shape, placement: base.placement, width: 3 });
      for (let turn = 0; turn < 6; turn++) {
        const schedule = mixed(base, next, 1 + turn % 3);
        const needed = await predictMemory(createModel(model), schedule, shape.samples, shape);
        const what = `${model} ${name} ${turn}`;
        assert.deepEqual(peakMemory(schedule, (stage) => stages[stage]), needed.map((peak) => peak.needed), what);
      }
    }
  }
});
