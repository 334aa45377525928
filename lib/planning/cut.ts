/** Cuts of a model into stages that make a schedule's step shorter than equal work does. */
import type { Layer } from "../layers/layer.ts";
import type { Model } from "../models/model.ts";
import { type Costs, endOf, type StageCost } from "../schedules/price/costs.ts";
import { unitMemory } from "../schedules/price/memory.ts";
import { lower } from "../schedules/program.ts";
import type { CutMemory } from "./cut_memory.ts";
import { leastPeaks, type Recipe, timed } from "./recipes.ts";
import { stageWork, type StageWorkOptions } from "./stage_work.ts";

/** Actions that a search simulates at most: seconds. */
const effort = 5e5;

/** A budget that a cut is to keep, and what stages of other cuts hold. */
export interface CutBudget {
  /** Bytes a device. */
  readonly bytes: number;
  /** By its layers what each stage holds. */
  readonly memory: CutMemory;
}

/** How good a cut is: the less above the budget the better, then the shorter. */
interface Score {
  /** By how many bytes the fullest rank is above the budget, whatever W does; 0 where there is none. */
  readonly over: number;
  /** Of a step that keeps it; Infinity where none does. */
  readonly makespan: number;
}

/** A cut that is worth a closer look. */
export interface Cut extends Score {
  /** The layers of each stage. */
  readonly parts: Layer[][];
}

/**
 * Cuts that the recipe takes less time with than with `parts`, the shortest first, at the same levels: as long as the step gets
 * shorter, a stage gives a layer to another, by way of those between them, the two that shorten it most. Under a budget, of which
 * a step then has to keep the weight gradients that wait, first as long as the fullest rank comes nearer to it; where no cut keeps
 * it, the result is the nearest.
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
  budget?: CutBudget,
): Cut[] {
  const cutAt = (borders: readonly number[]) =>
    borders.slice(1).map((end, stage) => model.layers.slice(borders[stage], end));
  const costsOf = (cut: readonly (readonly Layer[])[]) => price(stageWork(model, { ...options, parts: cut }), cut);
  const program = lower(recipe.base, endOf(costsOf(parts), recipe.base));
  const scoreOf = (borders: readonly number[]): Score => {
    const cut = cutAt(borders);
    if (!budget) return { over: 0, makespan: timed(recipe, program, costsOf(cut), unitMemory, Infinity)!.makespan };
    const memory = budget.memory(cut);
    const over = Math.max(0, ...leastPeaks(recipe, program, memory).map((bytes) => bytes - budget.bytes));
    if (over > 0) return { over, makespan: Infinity };
    return { over, makespan: timed(recipe, program, costsOf(cut), memory, budget.bytes)?.makespan ?? Infinity };
  };
  let borders = parts.reduce((ends, { length }) => [...ends, ends[ends.length - 1] + length], [0]);
  let score = scoreOf(borders), left = Math.ceil(effort / program.first[program.devices]);
  const found: Cut[] = [];
  for (;;) {
    const moved = moves(borders).slice(0, left);
    left -= moved.length;
    const [best] = moved.map((each) => ({ borders: each, score: scoreOf(each) }))
      .sort((a, b) => a.score.over - b.score.over || a.score.makespan - b.score.makespan);
    const isBetter = best && (best.score.over < score.over * (1 - 1e-9) ||
      best.score.over === score.over && best.score.makespan < score.makespan * (1 - 1e-9));
    if (!isBetter) break;
    ({ borders, score } = best);
    if (score.over === 0) found.unshift({ ...score, parts: cutAt(borders) });
  }
  return found.length > 0 || score.over === 0 ? found : [{ ...score, parts: cutAt(borders) }];
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
