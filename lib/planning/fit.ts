/** Makes a schedule fit into a budget of memory by recomputing as little as it takes. */
import type { RecomputeText } from "../runtime/recompute.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { type Costs, type StageCost, stageCosts } from "../schedules/price/costs.ts";
import { type Memory, peakMemory, type StageMemory } from "../schedules/price/memory.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { follow, type Recipe } from "./recipes.ts";
import { sizesOf } from "../schedules/check/sizes.ts";

/** One way to run a stage: what is recomputed, what that costs and holds. */
export interface Level {
  /** "both:3" for example. */
  readonly recompute: RecomputeText;
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

/**
 * The recipe's schedule within `budget` bytes a device, or undefined where it does not fit whatever is recomputed.
 *
 * Every rank starts without recomputation. Where the schedule does not fit, a rank over budget moves all its stages to the
 * cheapest level that fits its list of actions, or the next one, and the schedule is made anew: what a rank holds depends on
 * its own order only, but that order depends, with 2BP, on when everybody's results arrive. Then one rank at a time tries
 * every other level, as long as the step gets shorter: recomputing more can leave room for weight gradients to wait.
 *
 * @param levels For each stage its levels, the one without recomputation first.
 * @param transfer Time of a message between ranks.
 */
export function fit(
  recipe: Recipe,
  levels: readonly (readonly Level[])[],
  budget: number,
  transfer = 0,
): Fit | undefined {
  const { placement, actions: { length: devices } } = recipe.base;
  /** The levels of each rank by index, cheapest first. */
  const orders = Array.from({ length: devices }, (_, rank) => {
    const stages = placement.flatMap((at, stage) => at === rank ? [stage] : []);
    const time = (index: number) => stages.reduce((sum, stage) => sum + timeOf(levels[stage][index].cost, recipe), 0);
    return levels[stages[0]].map((_, index) => index).sort((a, b) => time(a) - time(b) || a - b);
  });
  const chosenAt = (position: readonly number[]) =>
    placement.map((rank, stage) => levels[stage][orders[rank][position[rank]]]);

  let position = new Array<number>(devices).fill(0);
  let best = attempt(chosenAt(position));
  while (!best.fit) {
    const moved = [...position];
    for (const rank of best.atFault) moved[rank] = nextLevel(rank, best.schedule);
    if (moved.every((index, rank) => index === position[rank])) return undefined;
    position = moved;
    best = attempt(chosenAt(position));
  }
  let found = best.fit;
  for (let improved = budget < Infinity; improved;) {
    improved = false;
    for (let rank = 0; rank < devices; rank++) {
      for (let index = 0; index < orders[rank].length; index++) {
        const trial = replaced(position, rank, index);
        const other = index === position[rank] ? undefined : attempt(chosenAt(trial)).fit;
        if (!other || other.makespan >= found.makespan * (1 - 1e-9)) continue;
        [found, position, improved] = [other, trial, true];
      }
    }
  }
  return found;

  function attempt(chosen: readonly Level[]): { fit?: Fit; schedule: Schedule; atFault: number[] } {
    const costs = costsOf(chosen, transfer), memory = memoryOf(chosen);
    const schedule = follow(recipe, costs, memory, budget);
    const peak = peakMemory(schedule ?? recipe.base, memory);
    const over = peak.flatMap((bytes, rank) => bytes > budget ? [rank] : []);
    if (schedule && over.length === 0) {
      const { makespan } = simulate(schedule, costs, memory);
      return { fit: { recipe, schedule, levels: chosen, makespan, peak }, schedule, atFault: [] };
    }
    // A full backward holds no derivatives between I and W: the base may fit where no split order does.
    return { schedule: schedule ?? recipe.base, atFault: over.length > 0 ? over : peak.map((_, rank) => rank) };
  }

  /** The next level that lets the rank's list fit, or else the next one at all; the last stays. */
  function nextLevel(rank: number, schedule: Schedule): number {
    const last = orders[rank].length - 1;
    for (let next = position[rank] + 1; next <= last; next++) {
      if (peakMemory(schedule, memoryOf(chosenAt(replaced(position, rank, next))))[rank] <= budget) return next;
    }
    return Math.min(position[rank] + 1, last);
  }
}

/** Costs of stages at these levels. */
export function costsOf(levels: readonly Level[], transfer: number): Costs {
  return stageCosts(levels.map(({ cost }) => cost), transfer);
}

/** Memory of stages at these levels. */
export function memoryOf(levels: readonly Level[]): Memory {
  return (stage) => levels[stage].memory;
}

function replaced(list: readonly number[], at: number, value: number): number[] {
  return list.map((each, index) => index === at ? value : each);
}

/** Time of all the work on one micro-batch. */
function timeOf(cost: StageCost, { split, base }: Recipe): number {
  const w = typeof cost.w === "number" ? cost.w : cost.w(1);
  return cost.f + (split || sizesOf(base).split ? cost.i + w : cost.b ?? cost.i + w);
}
