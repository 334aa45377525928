/** Cuts that a plan makes, against all cuts there are. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Layer } from "../../lib/layers/layer.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { plan } from "../../lib/planning/plan.ts";
import { follow, recipesFor } from "../../lib/planning/recipes.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { unitMemory } from "../../lib/schedules/price/memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { adamw } from "../../lib/train/optimizers.ts";

/** All ways to cut so many layers into stages: where each ends. */
function cutsOf(layers: number, stages: number, from = 0): number[][] {
  if (stages === 1) return [[layers]];
  const ends = Array.from({ length: layers - from - stages + 1 }, (_, index) => from + 1 + index);
  return ends.flatMap((end) => cutsOf(layers, stages - 1, end).map((rest) => [end, ...rest]));
}

test("a step is at most 2 % longer than with the best of all cuts, and never longer than with equal work", async () => {
  for (
    const [name, devices, microbatches, gain] of [
      ["llama-tiny", 2, 4, 0],
      ["llama-tiny", 3, 4, 0.08],
      ["bert-tiny", 3, 4, 0.06],
      ["resnet-tiny", 2, 4, 0],
      ["resnet-tiny", 3, 6, 0],
    ] as const
  ) {
    const model = createModel(name), { layers } = model, what = `${name} on ${devices}`;
    const recipes = recipesFor(devices, microbatches, layers.length);
    /** The shortest step of any schedule with this cut. */
    const shortest = (parts: readonly (readonly Layer[])[]) => {
      const tried = recipes.filter(({ stages }) => stages === parts.length).flatMap((recipe) =>
        (["i", "w"] as const).map((sums) => {
          const costs = stageCosts(stageWork(model, { parts, samples: 2, sums }));
          return simulate(follow(recipe, costs, unitMemory, Infinity)!, costs).makespan;
        })
      );
      return Math.min(...tried);
    };
    const sizes = [...new Set(recipes.map(({ stages }) => stages))];
    const equal = Math.min(...sizes.map((stages) => shortest(partition(model, stages))));
    const best = Math.min(
      ...sizes.flatMap((stages) =>
        cutsOf(layers.length, stages).map((ends) =>
          shortest(ends.map((end, stage) => layers.slice(stage > 0 ? ends[stage - 1] : 0, end)))
        )
      ),
    );
    const found = await plan(model, { devices, microbatches, samples: 2, budget: Infinity });
    assert.ok(found.makespan <= 1.02 * best, `${what}: ${found.makespan}, and ${best} with another cut`);
    assert.ok(found.makespan <= equal * (1 + 1e-9) && found.makespan <= found.equal.makespan, what);
    assert.ok(found.makespan <= (1 - gain) * equal, `${what}: ${found.makespan}, and ${equal} with equal work`);
  }
});

test("under a budget, a cut holds what was planned on every rank, and takes no longer than equal work", async () => {
  const model = createModel("llama-tiny"), options = { devices: 3, microbatches: 4, samples: 2 };
  const { peak: free } = await plan(model, { ...options, budget: Infinity });
  for (const share of [0.95, 0.8]) {
    const budget = Math.floor(share * Math.max(...free));
    const { schedule, parts, recompute, sums, peak, makespan, equal } = await plan(model, { ...options, budget });
    const whole = await predictMemory(model, schedule, 2, { optimizer: adamw(), parts, recompute, sums });
    assert.deepEqual(whole.map(({ needed }) => needed), peak);
    assert.ok(Math.max(...peak) <= budget && makespan <= equal.makespan && equal.makespan <= equal.plain);
  }
});
