/** Plans under a budget, against trying everything. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fit, type Level } from "../../lib/planning/fit.ts";
import { follow, type Recipe, recipesFor } from "../../lib/planning/recipes.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { validate } from "../../lib/schedules/check/validate.ts";

/**
 * Levels of a stage: nothing, half or all of the activations recomputed, for 1 or 2 more units of time in I; and sums in W, which
 * take a quarter of a unit of time more there than in I, and hold more.
 */
function levelsOf(scale: number): Level[] {
  const recomputing: Level[] = [0, 1, 2].map((step) => ({
    recompute: (["none", "activations:1", "activations:2"] as const)[step],
    sums: "i",
    cost: { f: 2 * scale, i: (2 + step) * scale, w: 2 * scale },
    memory: { activations: 10 - 4 * step, derivatives: 4, released: 5 - 2 * step, parameters: 3 * scale },
  }));
  const waiting: Level = {
    recompute: "none",
    sums: "w",
    cost: { f: 2 * scale, i: 1.75 * scale, w: 2.5 * scale },
    memory: { activations: 10, derivatives: 6, released: 3, parameters: 3 * scale },
  };
  return [...recomputing, waiting];
}

/** The least makespan over all levels of all ranks. */
function bruteForce(recipe: Recipe, levels: Level[][], budget: number): number {
  const { placement, actions: { length: devices } } = recipe.base;
  let best = Infinity;
  for (let number = 0; number < 4 ** devices; number++) {
    const chosen = placement.map((rank, stage) => levels[stage][Math.floor(number / 4 ** rank) % 4]);
    const costs = stageCosts(chosen.map(({ cost }) => cost));
    const memory = (stage: number) => chosen[stage].memory;
    const schedule = follow(recipe, costs, memory, budget);
    if (!schedule || peakMemory(schedule, memory).some((bytes) => bytes > budget)) continue;
    best = Math.min(best, simulate(schedule, costs).makespan);
  }
  return best;
}

for (const devices of [2, 3]) {
  test(`every schedule for ${devices} devices fits whenever it can, at most 10 % slower than the best of all levels`, () => {
    for (const recipe of recipesFor(devices, 4, 2 * devices)) {
      const levels = recipe.base.placement.map((_, stage) => levelsOf(1 + stage % 2));
      for (const budget of [8, 12, 16, 20, 26, 32, 40, 60, 200]) {
        const best = bruteForce(recipe, levels, budget);
        const found = fit(recipe, levels, budget);
        const label = `${recipe.name} ${recipe.split} ${budget}`;
        if (best === Infinity) {
          assert.equal(found, undefined, label);
          continue;
        }
        assert.ok(found, label);
        validate(found.schedule);
        assert.ok(found.peak.every((bytes) => bytes <= budget), label);
        assert.ok(found.makespan <= 1.1 * best + 1e-9, `${label}: ${found.makespan} for ${best}`);
      }
    }
  });
}

test("recipesFor() leaves out what needs more stages than there are layers", () => {
  assert.ok(recipesFor(4, 8, 4).every(({ stages }) => stages === 4));
  assert.ok(recipesFor(4, 8, 8).some(({ stages }) => stages === 8));
});

test("where a B takes less time than its I and W, the fastest fit mixes them, within the budget", () => {
  const levels: Level[] = [{
    recompute: "none",
    sums: "i",
    cost: { f: 1, i: 1, w: 1, b: 1.6 },
    memory: { activations: 10, derivatives: 4, released: 5 },
  }];
  const recipes = recipesFor(4, 8, 4).filter(({ name }) => name === "1f1b");
  const fits = (budget: number) => recipes.map((recipe) => fit(recipe, [levels, levels, levels, levels], budget));
  const [whole, split] = fits(Infinity);
  assert.equal(split!.schedule.policy, "select");
  validate(split!.schedule);
  const fill = follow(
    recipes[1],
    stageCosts([0, 1, 2, 3].map(() => levels[0].cost)),
    () => levels[0].memory,
    Infinity,
  )!;
  const plain = simulate(fill, stageCosts([0, 1, 2, 3].map(() => levels[0].cost))).makespan;
  assert.ok(split!.makespan < Math.min(whole!.makespan, plain), `${split!.makespan}, ${plain}, ${whole!.makespan}`);
  for (const budget of [40, 44, 50]) {
    for (const each of fits(budget)) if (each) assert.ok(each.peak.every((bytes) => bytes <= budget), `${budget}`);
  }
});
