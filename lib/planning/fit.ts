/** Makes a schedule fit into a budget of memory by recomputing as little as it takes, and chooses who makes sums for W. */
import type { Sums } from "../layers/sums.ts";
import type { RecomputeText } from "../runtime/recompute.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { type Costs, endOf, type StageCost, stageCosts } from "../schedules/price/costs.ts";
import type { Memory, StageMemory } from "../schedules/price/memory.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { lower } from "../schedules/program.ts";
import { recomputeAhead } from "../schedules/transforms/recompute_ahead.ts";
import type { StageOrder } from "../schedules/transforms/sum_order.ts";
import { follow, leastPeaks, ordersOf, type Recipe, select, timed } from "./recipes.ts";
import { expectSchedule, sizesOf } from "../schedules/check/sizes.ts";
import { leastTime } from "./least_time.ts";

/** One way to run a stage: what is recomputed and who makes the sums, what that costs and holds. */
export interface Level {
  /** "both:3" for example. */
  readonly recompute: RecomputeText;
  /** Who makes the sums that only W reads. */
  readonly sums: Sums;
  /** Of one micro-batch. */
  readonly cost: StageCost;
  /** In bytes. */
  readonly memory: StageMemory;
}

/** A schedule that fits. */
export interface Fit {
  /** Where it came from. */
  readonly recipe: Recipe;
  /** What to run. */
  readonly schedule: Schedule;
  /** Of each stage. */
  readonly levels: readonly Level[];
  /** Simulated, in the unit of the costs. */
  readonly makespan: number;
  /** Of each rank, in bytes. */
  readonly peak: readonly number[];
}

/** The levels of a rank, all of whose stages are at the same. */
interface Choice {
  /** By index, cheapest first. */
  readonly order: readonly number[];
  /** By index the least that the rank can do with, in bytes. */
  readonly least: readonly number[];
}

/** Of each rank what there is to choose from. What a rank needs at least depends on its own order and levels only. */
function choicesOf(recipe: Recipe, levels: readonly (readonly Level[])[]): Choice[] {
  const { placement, actions } = recipe.base, indices = levels[0].map((_, index) => index);
  const program = lower(recipe.base), isSplit = recipe.split || sizesOf(recipe.base).split;
  const peaks = indices.map((index) => {
    return leastPeaks(recipe, program, memoryOf(levels.map((each) => each[index])));
  });
  return actions.map((_, rank) => {
    const stages = placement.flatMap((at, stage) => at === rank ? [stage] : []);
    const times = indices.map((index) =>
      stages.reduce((sum, stage) => sum + timeOf(levels[stage][index].cost, isSplit), 0)
    );
    return {
      order: [...indices].sort((a, b) => times[a] - times[b] || a - b),
      least: peaks.map((each) => each[rank]),
    };
  });
}

/** The least budget that the recipe fits into, whatever it recomputes. */
export function leastBudget(recipe: Recipe, levels: readonly (readonly Level[])[]): number {
  return Math.max(...choicesOf(recipe, levels).map(({ least }) => Math.min(...least)));
}

/** The levels at which each rank can do with the least. */
export function leanestLevels(recipe: Recipe, levels: readonly (readonly Level[])[]): Level[] {
  const leanest = choicesOf(recipe, levels).map(({ least }) => least.indexOf(Math.min(...least)));
  return recipe.base.placement.map((rank, stage) => levels[stage][leanest[rank]]);
}

/**
 * The recipe's schedule within `budget` bytes a device, or undefined where it does not fit whatever is recomputed.
 *
 * Every rank starts with the cheapest of its levels that can do with the budget if each W runs at once: what a rank holds depends on
 * its own order only. Then one rank at a time tries every other level, as long as the step gets shorter: recomputing more can
 * leave room for weight gradients to wait, and a W that has more to do can end later if others wait less for the I. At the levels that are
 * found then, policy `select` is tried: a B beside I and W where the split does not pay; and, where a stage recomputes, both with that
 * run ahead of each backward. No level is tried of which {@link leastTime}
 * says that it cannot shorten the step.
 *
 * @param levels For each stage its levels, the one without recomputation first.
 * @param price Costs of stages that cost this; by default messages and hosts take no time.
 * @param limit The makespan of another recipe: undefined too where this one cannot be as short.
 * @param goal What this recipe takes without a budget: nothing more is tried once the step is as short.
 */
export function fit(
  recipe: Recipe,
  levels: readonly (readonly Level[])[],
  budget: number,
  price: Price = (stages) => stageCosts(stages),
  limit = Infinity,
  goal = 0,
): Fit | undefined {
  const { placement } = recipe.base;
  expectSchedule(recipe.base);
  const isCapped = budget < Infinity;
  const { program, floor } = floorOf(recipe, levels, isCapped, price);
  if (floor > limit * (1 + 1e-6)) return undefined;
  /** Where there is no budget, nothing is gained by recomputing. */
  const ways = isCapped ? levels : levels.map((each) => each.filter(({ recompute }) => recompute === "none"));
  const choices = choicesOf(recipe, ways).map(({ order, least }) => order.filter((index) => least[index] <= budget));
  if (choices.some(({ length }) => length === 0)) return undefined;
  const levelsAt = (chosen: readonly number[]) => placement.map((rank, stage) => ways[stage][chosen[rank]]);
  const leastAt = (chosen: readonly number[]) =>
    leastTime(program, price(levelsAt(chosen).map(({ cost }) => cost), placement), recipe.split, false);
  const attempt = (
    chosen: readonly number[],
    make = (costs: Costs, memory: Memory) => follow(recipe, costs, memory, budget),
  ): Fit | undefined => {
    const at = levelsAt(chosen);
    const costs = price(at.map(({ cost }) => cost), placement), memory = memoryOf(at);
    const schedule = make(costs, memory);
    if (!schedule) return undefined;
    const { makespan, peak } = simulate(schedule, costs, memory);
    return peak.every((bytes) => bytes <= budget) ? { recipe, schedule, levels: at, makespan, peak } : undefined;
  };
  const first = choices.map(([cheapest]) => cheapest), begun = attempt(first);
  if (!begun) return undefined;
  const isDone = (makespan: number) => makespan * (1 - 1e-9 + rounding) <= Math.max(floor, goal);
  const chosen = isDone(begun.makespan) ? first : climb(first);
  const climbed = chosen === first ? begun : attempt(chosen);
  const found = climbed && climbed.makespan < begun.makespan ? climbed : begun;
  const at = found === begun ? first : chosen;
  const selected = isDone(found.makespan) ? undefined : attempt(at, (costs) => select(recipe, costs));
  const settled = selected && selected.makespan < found.makespan * (1 - 1e-9) ? selected : found;
  return [...earlier(at)].reduce((best, one) => one.makespan < best.makespan * (1 - 1e-9) ? one : best, settled);

  /** With an R before each backward of the stages that recompute, on the ranks that have room for it. */
  function* earlier(chosen: readonly number[]): Generator<Fit> {
    const at = levelsAt(chosen), stages = at.flatMap(({ cost: { r = 0 } }, stage) => r > 0 ? [stage] : []);
    if (stages.length === 0) return;
    // What a rank needs at least depends on its own order only.
    const least = leastPeaks(recipe, lower(recomputeAhead(recipe.base, stages)), memoryOf(at));
    const base = recomputeAhead(recipe.base, stages.filter((stage) => least[placement[stage]] <= budget));
    const made = attempt(chosen, (costs, memory) => follow({ ...recipe, base }, costs, memory, budget));
    if (made) yield made;
    const selected = attempt(chosen, (costs) => select({ ...recipe, base }, costs));
    if (selected) yield selected;
  }

  /** The levels at which no rank can make the step shorter by another level of its own. */
  function climb(first: readonly number[]): readonly number[] {
    const timeAt = (chosen: readonly number[], bytes: number, order?: StageOrder) => {
      const at = levelsAt(chosen), costs = price(at.map(({ cost }) => cost), placement);
      const one = timed(recipe, program, costs, memoryOf(at), bytes, order);
      return one?.peaks.every((amount) => amount <= bytes) ? one : undefined;
    };
    let chosen = first;
    const costs = price(levelsAt(chosen).map(({ cost }) => cost), placement);
    // One order of a rank's stages does for comparing levels.
    const [best] = ordersOf(recipe, program, costs)
      .map((order) => ({ order, makespan: timeAt(chosen, budget, order)?.makespan ?? Infinity }))
      .sort((a, b) => a.makespan - b.makespan);
    const { order } = best;
    let { makespan } = best;
    const isShorter = (time: number, slack = 0) => time < makespan * (1 - 1e-9 + slack);
    /** What each rank would hold without a budget: who has room for that gains nothing by recomputing. */
    const wishes = () => timeAt(chosen, Infinity, order)!.peaks;
    let wished = isCapped ? wishes() : [];
    for (let improved = true; improved;) {
      improved = false;
      for (const [rank, indices] of choices.entries()) {
        for (const index of indices) {
          if (index === chosen[rank] || isDone(makespan)) continue;
          if (ways[0][index].recompute !== "none" && !(wished[rank] > budget)) continue;
          const trial = chosen.map((each, at) => at === rank ? index : each);
          const other = isShorter(leastAt(trial), rounding) ? timeAt(trial, budget, order) : undefined;
          if (!other || !isShorter(other.makespan)) continue;
          [makespan, chosen, improved] = [other.makespan, trial, true];
          if (isCapped) wished = wishes();
        }
      }
    }
    return chosen;
  }
}

/** How stages of these costs are priced. */
export type Price = (stages: readonly StageCost[], placement: readonly number[]) => Costs;

/** The time that no step of the recipe can be shorter than, whatever its levels: with none that recomputes, of those that do not. */
export function leastMakespan(
  recipe: Recipe,
  levels: readonly (readonly Level[])[],
  isCapped: boolean,
  price: Price,
): number {
  return floorOf(recipe, levels, isCapped, price).floor;
}

function floorOf(recipe: Recipe, levels: readonly (readonly Level[])[], isCapped: boolean, price: Price) {
  const free = price(levels.map((ways) => leastOf(ways, isCapped)), recipe.base.placement);
  const program = lower(recipe.base, endOf(free, recipe.base));
  return { program, floor: leastTime(program, free, recipe.split, true) };
}

/** What the same sum in another order may differ by. */
const rounding = 1e-10;

/** Not more than any level of a stage costs, part by part. */
function leastOf(ways: readonly Level[], isCapped: boolean): StageCost {
  const costs = ways.filter(({ recompute }) => isCapped || recompute === "none").map(({ cost }) => cost);
  const least = (of: (cost: StageCost) => number) => Math.min(...costs.map(of));
  return { f: least(({ f }) => f), i: least(({ i }) => i), w: least(widthOne), b: least(wholeOf) };
}

function widthOne({ w }: StageCost): number {
  return typeof w === "number" ? w : w(1);
}

function wholeOf(cost: StageCost): number {
  return cost.b ?? cost.i + widthOne(cost);
}

/** Memory of stages at these levels. */
export function memoryOf(levels: readonly Level[]): Memory {
  return (stage) => levels[stage].memory;
}

/** Time of all the work on one micro-batch. */
function timeOf(cost: StageCost, isSplit: boolean): number {
  return cost.f + (isSplit ? cost.i + widthOne(cost) : wholeOf(cost));
}
