/** The bound that saves planning most of its trials, against the schedules that planning makes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { leastTime } from "../../lib/planning/least_time.ts";
import { follow, recipesFor, select } from "../../lib/planning/recipes.ts";
import { generator } from "../../lib/random.ts";
import { endOf, stageCosts } from "../../lib/schedules/price/costs.ts";
import { unitMemory } from "../../lib/schedules/price/memory.ts";
import { withReplicas } from "../../lib/schedules/price/replicas.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { lower } from "../../lib/schedules/program.ts";

test("no schedule that planning makes is shorter than the bound, which one that is not split meets, with sums over replicas and without", () => {
  const { uniform: next } = generator(5);
  const network = { inside: { latency: 0.1, bandwidth: 1 } };
  for (const recipe of recipesFor(3, 5, 100)) {
    const { base, split } = recipe;
    for (const replicas of [1, 2]) {
      // A backward may take less than its halves.
      const stages = base.placement.map(() => ({ f: 1 + next(), i: 1 + next(), w: 1 + next(), b: 1 + 2 * next() }));
      const costs = withReplicas(stageCosts(stages), base.placement, { replicas, network, gradients: 2, message: 0.2 });
      const program = lower(base, endOf(costs, base));
      const bound = leastTime(program, costs, split, false), loose = leastTime(program, costs, split, true);
      const made = simulate(follow(recipe, costs, unitMemory, Infinity)!, costs).makespan;
      const mixed = select(recipe, costs);
      if (split) assert.ok(bound <= made * (1 + 1e-12), `${recipe.name}: ${made}, bound ${bound}`);
      else assert.equal(bound, made, recipe.name);
      if (mixed) {
        const { makespan } = simulate(mixed, costs);
        assert.ok(loose <= makespan * (1 + 1e-12), `${recipe.name}: ${makespan}, bound ${loose}`);
      }
      assert.ok(
        loose <= bound && bound > 0.5 * made,
        `${recipe.name}: a bound of ${bound} for ${made} rules out little`,
      );
    }
  }
});
