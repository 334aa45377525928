/** Cuts that a plan makes, against all cuts there are. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseBytes } from "../../lib/bytes.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { predictMemory } from "../../lib/measure/memory.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { cutMemories } from "../../lib/planning/cut_memory.ts";
import { leastBudget, type Level } from "../../lib/planning/fit.ts";
import { levelsOf } from "../../lib/planning/levels.ts";
import { plan } from "../../lib/planning/plan.ts";
import { follow, recipesFor } from "../../lib/planning/recipes.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { unitMemory } from "../../lib/schedules/price/memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { random } from "../schedules/support.ts";

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

test("what the stages of another cut hold is known from its layers, to 1 % of what a step on shapes says", async () => {
  const next = random(5), optimizer = adamw();
  for (const name of ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"]) {
    const model = createModel(name),
      { layers } = model,
      equal = partition(model, 3),
      options = { samples: 2, optimizer };
    const memories = cutMemories(model, options);
    for (const recompute of ["none", "activations", "both:1"] as const) {
      const at = await stageMemories(model, { ...options, parts: equal, recompute });
      const cost = { f: 1, i: 1, w: 1 };
      const memoryOf = await memories(at.map((memory): Level => ({ recompute, sums: "i", cost, memory })));
      for (let trial = 0; trial < 3; trial++) {
        const cuts = cutsOf(layers.length, 3), ends = cuts[Math.floor(next() * cuts.length)];
        const parts = ends.map((end, stage) => layers.slice(stage > 0 ? ends[stage - 1] : 0, end));
        const known = memoryOf(parts), measured = await stageMemories(model, { ...options, parts, recompute });
        const all = measured.reduce((sum, { parameters = 0 }) => sum + parameters, 0);
        for (const [stage, memory] of measured.entries()) {
          for (const what of ["activations", "released", "derivatives", "whole", "parameters", "optimizer"] as const) {
            const [near, exact] = [known(stage)[what] ?? 0, memory[what] ?? 0];
            const label = `${name} ${recompute} ${ends}, ${what} of stage ${stage}: ${near}, not ${exact}`;
            assert.ok(Math.abs(near - exact) <= 0.01 * (memory.activations + all), label);
          }
        }
      }
    }
  }
});

test("where no equal work fits, another cut may: the least budget is less than any equal cut needs, and is kept", async () => {
  const model = createModel("bert-tiny"), sizes = { devices: 3, microbatches: 6, samples: 4 };
  const equal = recipesFor(sizes.devices, sizes.microbatches, model.layers.length).filter(({ stages }) => stages === 3);
  const levels = await levelsOf(
    model,
    partition(model, 3),
    { samples: sizes.samples, placement: [0, 1, 2], optimizer: adamw() },
    () => {},
  );
  const needed = Math.min(...equal.map((recipe) => leastBudget(recipe, levels)));
  const error = await plan(model, { ...sizes, budget: 2 ** 20 }).catch((error) => error);
  const [, least] = /the least that would do is ([\d.]+MiB)$/.exec(error.message) ?? [];
  const { peak, schedule, parts, recompute, sums } = await plan(model, { ...sizes, budget: parseBytes(least!) });
  assert.ok(parseBytes(least!) < needed, `${least}, and ${needed} with equal work`);
  const whole = await predictMemory(model, schedule, sizes.samples, { optimizer: adamw(), parts, recompute, sums });
  assert.deepEqual(whole.map(({ needed }) => needed), peak);
  assert.ok(Math.max(...peak) <= parseBytes(least!));
});
