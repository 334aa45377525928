/** The schedules that a plan chooses from. */
import { UserError } from "../errors.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { type Costs, endOf } from "../schedules/price/costs.ts";
import { generate } from "../schedules/generators/generate.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { peaksOf } from "../schedules/price/peak_memory.ts";
import { timesOf } from "../schedules/price/simulate.ts";
import { lower, type Program } from "../schedules/program.ts";
import { fillFast, fillUnderCap, leastCaps } from "../schedules/transforms/fill.ts";
import { fillSelected } from "../schedules/transforms/select.ts";
import { isSummed, type StageOrder, stageOrders } from "../schedules/transforms/sum_order.ts";
import { twoStage } from "../schedules/transforms/two_stage.ts";
import { wholeBackward } from "../schedules/transforms/whole.ts";

/** Actions that are looked at to select splits: a tenth of what `twoStage()` looks at, since there are many recipes. */
const effort = 1e6;

/** A way to make a schedule, which may depend on what its stages cost and hold. */
export interface Recipe {
  /** Name of the generator. */
  readonly name: string;
  /** Stages of the model that it needs. */
  readonly stages: number;
  /** What is fixed before costs are known: action order without 2BP, or of a generator that splits by itself. */
  readonly base: Schedule;
  /** Whether 2BP is applied to `base`, under the budget. */
  readonly split: boolean;
}

/**
 * Every recipe for so many devices and micro-batches: each schedule of the zoo as it is, and with 2BP, for which one that is split by
 * its own design keeps its order of F and I, while its W are placed anew, for the costs at hand. Schedules that are not defined for these sizes, and those that take more stages than `mostStages`, are
 * left out; `naive` and the names that are another schedule with its own usual number of micro-batches would be there twice.
 *
 * @param exactly Only those with so many stages; what takes any number of stages a rank has as many. By default the usual.
 */
export function recipesFor(devices: number, microbatches: number, mostStages: number, exactly?: number): Recipe[] {
  const each = (exactly ?? 0) / devices, chunks = Number.isInteger(each) && each > 1 ? each : undefined;
  const recipes: Recipe[] = [];
  for (const { name, sameAs, isChunked } of zoo) {
    if (sameAs || (name === "naive" && microbatches > 1)) continue;
    let base: Schedule;
    try {
      base = generate(name, { devices, microbatches, ...isChunked && chunks && { chunks } });
    } catch (error) {
      if (error instanceof UserError) continue;
      throw error;
    }
    const { placement: { length: stages } } = base;
    if (stages > mostStages || (exactly !== undefined && stages !== exactly)) continue;
    recipes.push({ name, stages, base, split: false });
    recipes.push({ name, stages, base: sizesOf(base).split ? wholeBackward(base) : base, split: true });
  }
  return recipes;
}

/**
 * The recipe's schedule: with 2BP, weight gradients fill idle slots, and run earlier where the budget would be exceeded.
 * Undefined where no order of the weight gradients keeps the budget.
 */
export function follow({ base, split }: Recipe, costs: Costs, memory: Memory, budget: number): Schedule | undefined {
  if (!split) return base;
  if (budget === Infinity) return twoStage(base, { policy: "fill", costs });
  try {
    return twoStage(base, { policy: `cap:${budget}`, costs, memory });
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/**
 * What a step of the recipe takes under the budget, and what each rank holds then, without its schedule, for a fraction of what
 * {@link follow} takes: a rank's stages finish their weight gradients in one order. Undefined where no order of them keeps the budget.
 *
 * @param program Of the recipe's base, with what the end of a step waits for.
 * @param order Of the stages of a rank; by default those that have waited longest go first.
 */
export function timed(
  { split }: Recipe,
  program: Program,
  costs: Costs,
  memory: Memory,
  budget: number,
  order?: StageOrder,
): { makespan: number; peaks: readonly number[] } | undefined {
  if (!split) return { makespan: timesOf(program, costs).makespan, peaks: peaksOf(program, memory) };
  if (budget === Infinity && !isSummed(program)) {
    const { makespan, program: filled } = fillFast(program, 1, costs);
    return { makespan, peaks: peaksOf(filled, memory) };
  }
  const filled = fillUnderCap(program, 1, costs, { bytes: program.schedule.actions.map(() => budget), memory }, order);
  return filled && { makespan: timesOf(filled.program, costs).makespan, peaks: filled.peaks };
}

/** What each rank can do with, if each W runs at once where the recipe splits; of the recipe's base, lowered. */
export function leastPeaks({ split }: Recipe, program: Program, memory: Memory): number[] {
  return split ? leastCaps(program, memory) : peaksOf(program, memory);
}

/** The orders of a rank's stages that {@link timed} may be asked for. */
export function ordersOf({ split }: Recipe, program: Program, costs: Costs): (StageOrder | undefined)[] {
  return [undefined, ...split ? stageOrders(program, costs) : []];
}

/** The recipe's schedule with 2BP only where it pays, whatever that holds; undefined where it is not split at all. */
export function select({ base, split }: Recipe, costs: Costs): Schedule | undefined {
  if (!split) return undefined;
  const { actions } = fillSelected(lower(base, endOf(costs, base)), 1, costs, effort);
  const selected: Schedule = { ...base, actions, policy: "select" };
  return sizesOf(selected).split ? selected : undefined;
}
