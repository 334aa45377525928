/** Who makes the sums of a given schedule, against trying everything and against the arithmetic of 1F1B. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Sums } from "../../lib/layers/sums.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import type { Model } from "../../lib/models/model.ts";
import { createModel } from "../../lib/models/registry.ts";
import { chooseSums } from "../../lib/planning/choose_sums.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const kind = { samples: 2, optimizer: adamw() };

/** Every choice of makers with its simulated makespan, and the bytes that each rank needs. */
async function every(model: Model, schedule: Schedule) {
  const { placement } = schedule, parts = partition(model, placement.length);
  const choices: { sums: Sums[]; makespan: number; peak: number }[] = [];
  for (let number = 0; number < 2 ** placement.length; number++) {
    const sums = placement.map((_, stage): Sums => number >> stage & 1 ? "w" : "i");
    const stages = await stageMemories(model, { ...kind, parts, placement, sums });
    const { makespan } = simulate(schedule, stageCosts(stageWork(model, { samples: 2, parts, sums })));
    choices.push({ sums, makespan, peak: Math.max(...peakMemory(schedule, (stage) => stages[stage])) });
  }
  return choices;
}

test("the makers that are chosen are as fast as the best of all, with a budget and without", async () => {
  for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny"]) {
    for (const generator of ["naive", "gpipe", "1f1b-1", "1f1b-2"]) {
      const schedule = twoStage(generate(generator, { devices: 4 }));
      const choices = await every(createModel(name), schedule);
      const most = Math.max(...choices.map(({ peak }) => peak)), least = Math.min(...choices.map(({ peak }) => peak));
      for (const budget of [Infinity, (most + least) / 2, least]) {
        const sums = await chooseSums(createModel(name), schedule, { ...kind, budget });
        const found = choices.find((each) => String(each.sums) === String(sums))!;
        const best = Math.min(...choices.filter(({ peak }) => peak <= budget).map(({ makespan }) => makespan));
        assert.ok(found.peak <= budget, `${name} ${generator} ${budget}: ${sums} needs ${found.peak}`);
        assert.ok(
          found.makespan <= best * (1 + 1e-3),
          `${name} ${generator} ${budget}: ${sums}, ${found.makespan}, ${best}`,
        );
      }
      assert.equal(await chooseSums(createModel(name), schedule, { ...kind, budget: least - 1 }), undefined);
    }
  }
});

test("where stages are alike the first rank's I makes the sums, which nobody waits for, and the others' W", async () => {
  const model = createModel("llama-deep");
  for (const generator of ["naive", "gpipe", "1f1b-1"]) {
    const base = generate(generator, { devices: 4 });
    assert.deepEqual(await chooseSums(model, twoStage(base), kind), ["i", "w", "w", "w"]);
    assert.deepEqual(await chooseSums(model, base, kind), ["i", "i", "i", "i"], "there is no W to make them");
  }
});
