/** Cuts of a model into stages that make a schedule's step shorter than equal work does. */
import type { Layer } from "../layers/layer.ts";
import type { Model } from "../models/model.ts";
import { type Costs, endOf, type StageCost } from "../schedules/price/costs.ts";
import { unitMemory } from "../schedules/price/memory.ts";
import { lower } from "../schedules/program.ts";
import { type Recipe, timed } from "./recipes.ts";
import { stageWork, type StageWorkOptions } from "./stage_work.ts";

/** Actions that a search simulates at most: seconds. */
const effort = 5e5;

/**
 * Cuts that the recipe takes less time with than with `parts`, the shortest first, with that time, at the same levels: as long as the step gets
 * shorter, a stage gives a layer to another, by way of those between them, the two that shorten it most. Memory is not looked at.
 *
 * @param options What a micro-batch is, and what the stages recompute.
 * @param price Costs of stages that cost this, and have these layers.
 */
export function shorterCuts(
  model: Model,
  recipe: Recipe,
  parts: readonly (readonly Layer[])[],
  options: Omit<StageWorkOptions, "parts" | "stages">,
  price: (stages: readonly StageCost[], parts: readonly (readonly Layer[])[]) => Costs,
): { parts: Layer[][]; makespan: number }[] {
  const cutAt = (borders: readonly number[]) =>
    borders.slice(1).map((end, stage) => model.layers.slice(borders[stage], end));
  const costsOf = (cut: readonly (readonly Layer[])[]) => price(stageWork(model, { ...options, parts: cut }), cut);
  const program = lower(recipe.base, endOf(costsOf(parts), recipe.base));
  const timeOf = (borders: readonly number[]) =>
    timed(recipe, program, costsOf(cutAt(borders)), unitMemory, Infinity)!.makespan;
  let borders = parts.reduce((ends, { length }) => [...ends, ends[ends.length - 1] + length], [0]);
  let makespan = timeOf(borders), left = Math.ceil(effort / program.first[program.devices]);
  const found: { parts: Layer[][]; makespan: number }[] = [];
  for (;;) {
    const moved = moves(borders).slice(0, left);
    left -= moved.length;
    const [best] = moved.map((each) => ({ borders: each, makespan: timeOf(each) }))
      .sort((a, b) => a.makespan - b.makespan);
    if (!best || best.makespan >= makespan * (1 - 1e-9)) return found;
    ({ borders, makespan } = best);
    found.unshift({ parts: cutAt(borders), makespan });
  }
}

/** Borders after a stage has given a layer to another, neighbours first; a stage keeps one. */
function moves(borders: readonly number[]): number[][] {
  const inner = borders.length - 2, all: number[][] = [];
  for (let length = 1; length <= inner; length++) {
    for (let start = 1; start + length <= inner + 1; start++) {
      for (const by of [-1, 1]) {
        const moved = borders.map((border, at) => at >= start && at < start + length ? border + by : border);
        if (moved.every((border, at) => at === 0 || border > moved[at - 1])) all.push(moved);
      }
    }
  }
  return all;
}
