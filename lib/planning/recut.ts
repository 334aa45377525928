/** Other cuts of a model than the one by equal work, for what a plan has found. */
import type { Layer } from "../layers/layer.ts";
import type { Model } from "../models/model.ts";
import { splitParts } from "../runtime/partition.ts";
import type { Neighbours } from "../schedules/price/replicas.ts";
import { splitStages } from "../schedules/transforms/split_stages.ts";
import { type Cut, shorterCuts } from "./cut.ts";
import type { CutMemory } from "./cut_memory.ts";
import { type Fit, fit, leanestLevels, leastBudget, type Level, type Price } from "./fit.ts";

/** The layers of the stages, and the ways to run each. */
export interface Staging {
  readonly parts: Layer[][];
  readonly levels: Level[][];
}

/** A schedule that fits, with the cut that it is of and how that is priced. */
export interface Found extends Fit {
  readonly parts: Layer[][];
  /** How replicas are placed on hosts, where there are several. */
  readonly side: Neighbours | undefined;
  readonly price: Price;
}

/** What cuts are looked at with. */
export interface Cutting {
  readonly model: Model;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** The levels of stages of these layers. */
  staged(placement: readonly number[], parts: Layer[][]): Promise<Staging>;
  /** What stages of any cut hold at these levels, near enough to choose a cut by. */
  memories(levels: readonly Level[]): Promise<CutMemory>;
  pricedAt(side: Neighbours | undefined, staging: Staging): Price;
}

/** Finds better cuts. */
export interface Recutter {
  /**
   * The same recipe with its model cut in another way, where that is shorter, within so many bytes a device: where the step takes `free` with
   * as many as it likes.
   */
  recut(found: Found, equal: Staging, bytes: number, free?: number): Promise<Found>;
  /**
   * The recipe with its model cut such that it comes nearest to a budget that it does not fit with equal work: what fits then, and the
   * least budget that would.
   */
  squeezed(tight: readonly Tight[], bytes: number): Promise<{ found?: Found; least: number }>;
  /** The same cut with its stages in ranges of layers, each with a W of its own, where that is worth more actions of the host. */
  inRanges(found: Found, bytes: number): Promise<Found>;
}

/** A recipe that does not fit with equal work. */
export interface Tight extends Pick<Found, "recipe" | "side"> {
  readonly equal: Staging;
}

/** Cuts that are looked at in full, of those that a schedule would be shorter with. */
const mostCuts = 2;

/** Recipes that are looked at in full where no equal work fits. */
const mostSqueezed = 4;

/** Ranges of a stage's layers that are tried, the next only where the one before it is worth it. */
const rangesTried = [2, 4];

/** By what share a step has to be shorter for ranges: times are counted, and know nothing of what the host takes for each action. */
const worthRanges = 0.005;

/** By what share a budget has to make a step longer for cuts to be looked for that keep it. */
const worthSearching = 0.005;

/** A cut, and on demand what its stages cost and hold. */
interface Looked {
  readonly cut: Cut;
  staging(): Promise<Staging>;
}

/** For plans of a model whose cut is free. */
export function recutterOf({ model, samples, staged, memories, pricedAt }: Cutting): Recutter {
  const known = new Map<string, readonly Looked[]>();
  /** Cuts of a recipe's model that are better at these levels than the one it has. */
  async function cutsOf(
    { recipe, levels, parts, side }: Omit<Found, "price" | "schedule" | "makespan" | "peak">,
    bytes: number,
  ) {
    const { name, split, base: { placement } } = recipe;
    const how = { samples, recompute: levels.map(({ recompute }) => recompute), sums: levels.map(({ sums }) => sums) };
    const key = JSON.stringify([name, split, parts.map(({ length }) => length), how, bytes]);
    const price: Parameters<typeof shorterCuts>[4] = (stages, cut) =>
      pricedAt(side, { parts: cut.map((each) => [...each]), levels: levels.map((each) => [each]) })(stages, placement);
    const budget = bytes < Infinity ? { bytes, memory: await memories(levels) } : undefined;
    const made = known.get(key) ?? shorterCuts(model, recipe, parts, how, price, budget).slice(0, mostCuts)
      .map((cut) => ({ cut, staging: once(() => staged(placement, cut.parts)) }));
    known.set(key, made);
    return made;
  }
  /** What the recipe of a cut is then, where that is shorter than `limit`. */
  async function attempt(
    { recipe, side }: Tight | Found,
    looked: Looked,
    bytes: number,
    limit?: number,
    goal?: number,
  ) {
    const staging = await looked.staging(), price = pricedAt(side, staging);
    const one = fit(recipe, staging.levels, bytes, price, limit, goal);
    if (!one || one.makespan >= (limit ?? Infinity) * (1 - 1e-9)) return undefined;
    return { ...one, side, price, parts: staging.parts };
  }

  async function recut(found: Found, equal: Staging, bytes: number, free = 0): Promise<Found> {
    let best = found;
    for (const each of await cutsOf(found, Infinity)) {
      const other = await attempt(found, each, bytes, best.makespan, each.cut.makespan);
      if (!other) continue;
      best = other;
      break;
    }
    if (bytes === Infinity || best.makespan <= (1 + worthSearching) * free) return best;
    // Layers that move to where there is room may take the place of what is recomputed.
    const plain = found.levels.map(({ sums }, stage) => equal.levels[stage].find((each) => each.sums === sums)!);
    const recomputes = found.levels.some(({ recompute }) => recompute !== "none");
    for (const levels of recomputes ? [found.levels, plain] : [plain]) {
      const [nearest] = await cutsOf({ ...found, levels }, bytes);
      const other = nearest && await attempt(found, nearest, bytes, best.makespan);
      if (other) best = other;
    }
    return best;
  }

  async function squeezed(tight: readonly Tight[], bytes: number) {
    const nearest = [];
    for (const one of tight) {
      const { recipe, equal: { parts, levels } } = one;
      const [looked] = await cutsOf({ ...one, parts, levels: leanestLevels(recipe, levels) }, bytes);
      if (looked) nearest.push({ one, looked });
    }
    nearest.sort(({ looked: { cut: a } }, { looked: { cut: b } }) => a.over - b.over || a.makespan - b.makespan);
    let found: Found | undefined, least = Infinity;
    for (const { one, looked } of nearest.slice(0, mostSqueezed)) {
      least = Math.min(least, leastBudget(one.recipe, (await looked.staging()).levels));
      found = await attempt(one, looked, bytes, found?.makespan) ?? found;
    }
    return { found, least };
  }

  async function inRanges(found: Found, bytes: number): Promise<Found> {
    const { recipe, parts, side } = found;
    let best = found;
    for (const ranges of rangesTried) {
      if (!recipe.split || parts.some(({ length }) => length < ranges)) break;
      const base = splitStages(recipe.base, ranges), { placement } = base;
      const staging = await staged(placement, splitParts(model, parts, ranges)), price = pricedAt(side, staging);
      const limit = best.makespan * (1 - worthRanges);
      const one = fit({ ...recipe, stages: placement.length, base }, staging.levels, bytes, price, limit);
      if (!one || one.makespan > limit) break;
      best = { ...one, side, price, parts: staging.parts };
    }
    return best;
  }
  return { recut, squeezed, inRanges };
}

/** What is made at the first call, and not again. */
function once<Result>(make: () => Result): () => Result {
  let made: { result: Result } | undefined;
  return () => (made ??= { result: make() }).result;
}
