/** Chooses schedule, policy, recomputation and who makes sums for a model under a budget of memory. */
import { formatBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { predictMemory } from "../measure/memory.ts";
import { stageMemories } from "../measure/stage_memory.ts";
import type { Planned, PlanOptions, TrainingPlan } from "./options.ts";
import { deviceKinds, kindInFull } from "../gpu/kind.ts";
import { expectModel, type Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { budgetRule, precisionRule } from "../runtime/pipeline.ts";
import { anything, callback, expectFields, flag, oneOf, optional, positive, type Rules, whole } from "../rules.ts";
import { type StageCost, stageCosts } from "../schedules/price/costs.ts";
import { type Neighbours, withReplicas } from "../schedules/price/replicas.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { plainMakespan } from "../schedules/transforms/plain.ts";
import { adamw, optimizerRule } from "../train/optimizers.ts";
import { clusterLevels, clusterPrice, clusterRecipes } from "./cluster_levels.ts";
import { cutMemories } from "./cut_memory.ts";
import { type Fit, fit, leastBudget, leastMakespan, type Price } from "./fit.ts";
import { levelsOf } from "./levels.ts";
import { type Recipe, recipesFor } from "./recipes.ts";
import { type Found, recutterOf, type Staging } from "./recut.ts";
import { mostOnShapes, planReplicated, replicaOptions, sidesOf, withReplicaSums } from "./replicas.ts";

const rules: Rules<PlanOptions> = {
  devices: positive,
  microbatches: positive,
  replicas: {
    right: 'a whole number, 1 or more, or "auto"',
    accepts: (value) => value === undefined || value === "auto" || positive.accepts(value),
  },
  hosts: optional(positive),
  network: anything, // by `withReplicas`
  shardOptimizer: optional(flag),
  budget: budgetRule,
  samples: optional(positive),
  optimizer: optional(optimizerRule),
  precision: optional(precisionRule),
  kind: optional(oneOf(deviceKinds)),
  apart: optional(flag),
  software: optional(flag),
  subgroupSize: optional(whole(0)),
  cluster: anything, // by `readCluster`
  onProgress: optional(callback),
};

/**
 * The fastest schedule, policy of 2BP, cut into stages, recomputation and maker of sums that need no more memory than a budget on any
 * device. Nothing is run: memory is predicted from shapes, time simulated on the layers' operation counts (so it knows nothing of batching
 * gains, transfers or memory-bound layers). Every schedule of the zoo that is defined for these sizes is tried, with and without
 * 2BP; within a schedule each rank recomputes as little as it takes. Not an exhaustive search: all stages of a rank recompute
 * alike, in steps of a quarter of their layers. Of the fastest its stages are cut into ranges of layers too (see `splitStages`), which
 * is taken where it is worth 0.5 % of a step. Schedules are compared with equal work in their stages; for the fastest, layers then
 * move between stages as long as the step gets shorter, by what they take and under a budget by what they hold too, and the best of
 * these cuts are planned in full. Where no cut by equal work fits, those are tried that come nearest.
 *
 * With `replicas`, the devices are cut into so many pipelines, `makespan` has the sums over them, and the schedule is chosen that hides
 * most of them where that makes the step shortest; on several `hosts`, ranks of a replica are neighbours, or replicas of a rank,
 * whichever is shorter. Memory is that of a step on shapes of all replicas.
 *
 * With a `cluster`, the cut is the one by equal work, and time is what its stages, messages, hosts and tails take. Only
 * schedules of its number of stages are tried then, and of these the ones whose kinds of action it knows; `leftOut` names the
 * others. A stage takes the same on whichever rank a schedule places it; what it recomputes is added at the time that an
 * operation of its F and B takes; sums are I's.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, openDevices, plan, textSource } from "twobp";
 *
 * const model = createModel("llama-tiny");
 * const { schedule, ...how } = await plan(model, { devices: 2, microbatches: 4, budget: 12 * 2 ** 20 });
 * const { placement } = schedule, { parts, recompute, sums } = how;
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, model, { optimizer: adamw(), placement, parts, recompute, sums });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * console.log((await pipeline.step(schedule, text.next(4))).loss);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} When nothing fits: it names the least budget that would do. On an option out of its range, or an unknown one;
 * on a cluster of other ranks, or without times for any schedule.
 */
export async function plan(model: Model, options: PlanOptions): Promise<TrainingPlan> {
  expectModel("plan", model);
  expectFields("plan", options, rules);
  return await planReplicated(options, (one, replicas) => planOne(model, one, replicas));
}

/** A plan for one number of replicas: `options` say what each of them has. */
async function planOne(model: Model, options: PlanOptions, replicas: number): Promise<TrainingPlan> {
  const { devices, microbatches, budget, samples = 1, optimizer = adamw(), shardOptimizer = false } = options;
  const { precision = "f32", apart = false, cluster } = options;
  const kind = { optimizer, precision, apart, ...kindInFull(options) };
  // More than a few on shapes would take as many times as long, and are alike.
  const copies = { replicas: Math.min(replicas, mostOnShapes), ...replicas > 1 && { shardOptimizer } };
  const { recipes, leftOut } = cluster !== undefined
    ? clusterRecipes(model, cluster, devices, microbatches)
    : { recipes: recipesFor(devices, microbatches, model.layers.length), leftOut: [] };
  if (recipes.length === 0) {
    throw new UserError(`${model.name} has ${model.layers.length} layers, which cannot be cut into ${devices} stages`);
  }
  /** By placement: the layers of the stages, and what each of them may recompute. */
  const stagings = new Map<string, Staging>();
  const placements = new Map(recipes.map(({ base: { placement } }) => [placement.join(), placement]));
  for (const [name, placement] of placements) {
    const made = stagings.size;
    const tell = (done: number, all: number) => options.onProgress?.((made + done / all) / placements.size);
    stagings.set(name, await staged(placement, partition(model, placement), tell));
  }
  /** The levels of stages of these layers. */
  async function staged(
    placement: readonly number[],
    parts: Layer[][],
    tell: (done: number, all: number) => void = () => {},
  ): Promise<Staging> {
    const counted = await levelsOf(model, parts, { samples, placement, ...kind }, tell);
    const levels = cluster ? clusterLevels(counted, cluster) : counted;
    if (replicas === 1) return { parts, levels };
    const shared = await stageMemories(model, { ...kind, ...copies, parts, placement, samples });
    return { parts, levels: withReplicaSums(levels, shared, placement, replicas, { shardOptimizer, apart }) };
  }
  const stagingOf = ({ base: { placement } }: Recipe) => stagings.get(placement.join())!;
  const priceOne = cluster ? clusterPrice(cluster) : (stages: readonly StageCost[]) => stageCosts(stages);
  const sides = sidesOf(options, replicas);
  const pricedAt = (side: Neighbours | undefined, staging: Staging): Price =>
    side
      ? (stages, placement) =>
        withReplicas(priceOne(stages), placement, replicaOptions(options, replicas, side, staging))
      : priceOne;
  /** The prices of a recipe with its replicas where its schedule is shorter without 2BP: what W does moves neither links nor bytes. */
  const placed = new Map(recipes.map((recipe) => {
    const staging = stagingOf(recipe), { base } = recipe;
    const cheapest = staging.levels.map(([{ cost }]) => cost);
    const [best] = sides.map((side) => {
      const price = pricedAt(side, staging);
      const makespan = sides.length > 1 ? simulate(base, price(cheapest, base.placement)).makespan : 0;
      return { side, price, makespan };
    }).sort((a, b) => a.makespan - b.makespan);
    return [recipe, best] as const;
  }));
  /** What recipes take without a budget, of those that were looked at. */
  const goals = new Map<Recipe, number>();
  const fitted = (bytes: number): Found[] => {
    let shortest = Infinity;
    // The most promising first: of the others most need not be looked at then.
    const floors = new Map(recipes.map((recipe) => {
      const { levels } = stagingOf(recipe);
      return [recipe, leastMakespan(recipe, levels, bytes < Infinity, placed.get(recipe)!.price)] as const;
    }));
    return [...recipes].sort((a, b) => floors.get(a)! - floors.get(b)!).flatMap((recipe) => {
      const { side, price } = placed.get(recipe)!;
      const one = fit(recipe, stagingOf(recipe).levels, bytes, price, shortest, goals.get(recipe));
      if (!one) return [];
      shortest = Math.min(shortest, one.makespan);
      if (bytes === Infinity) goals.set(recipe, one.makespan);
      return [{ ...one, side, price, parts: stagingOf(recipe).parts }];
    }).sort(byMakespan);
  };
  const isWithin = ({ peak }: Found) => peak.every((bytes) => bytes <= budget);
  /** A cluster's times are of its own cut. */
  const cutter = cluster
    ? undefined
    : recutterOf({ model, samples, staged, pricedAt, memories: cutMemories(model, { samples, ...kind }) });
  const better = async (found: Found, bytes: number, free?: number) =>
    cutter ? await cutter.inRanges(await cutter.recut(found, stagingOf(found.recipe), bytes, free), bytes) : found;
  const [equal] = fitted(Infinity), fastest = await better(equal, Infinity);
  // What is fastest without a budget is so with one that it keeps.
  const [even]: (Found | undefined)[] = isWithin(equal) ? [equal] : fitted(budget);
  const tight = recipes.map((recipe) => ({ recipe, side: placed.get(recipe)!.side, equal: stagingOf(recipe) }));
  const squeezed = even || isWithin(fastest) ? undefined : await cutter?.squeezed(tight, budget);
  const started = even ?? squeezed?.found;
  const found = isWithin(fastest) ? fastest : started && await better(started, budget, fastest.makespan);
  if (!found) {
    const equals = recipes.map((recipe) => leastBudget(recipe, stagingOf(recipe).levels));
    const least = Math.min(...equals, squeezed?.least ?? Infinity);
    throw new UserError(
      `${model.name} on ${devices} devices with ${microbatches} micro-batches of ${samples} ` +
        `${cluster ? `in the cluster's ${cluster.stages.length} stages ` : ""}does not fit ` +
        `${formatBytes(budget)} a device, whatever is recomputed: the least that would do is ` +
        `${Math.ceil(least / 2 ** 20 * 10) / 10}MiB`,
    );
  }
  const compared = even ?? equal; // equal work may not fit where another cut does
  const { levels, makespan, peak } = found, planned = plannedOf(found), { schedule, parts, recompute, sums } = planned;
  // What the stages hold, and what the whole step needs on shapes, are one truth: the plan is held against it once.
  const whole = await predictMemory(model, schedule, samples, { ...kind, ...copies, parts, recompute, sums });
  for (const [peer, { needed }] of whole.entries()) {
    const rank = peer % devices;
    // Of a sharded optimizer a few replicas have larger shares each than many.
    if (needed <= peak[rank] || (shardOptimizer && replicas > mostOnShapes)) continue;
    throw new Error(`Rank ${rank} needs ${needed} bytes in a step of ${schedule.name}, and ${peak[rank]} were planned`);
  }
  const { schedule: first, makespan: shortest, peak: most } = fastest;
  const costs = found.price(levels.map(({ cost }) => cost), schedule.placement), { sum: _, ...rest } = costs;
  return {
    ...planned,
    makespan,
    times: cluster ? "cluster" : "counted",
    peak,
    unlimited: { schedule: first, makespan: shortest, peak: most },
    replicas,
    ...found.side && replicas > 1 && (options.hosts ?? 1) > 1 && { neighbours: found.side },
    exposedSums: Math.max(0, makespan - simulate(schedule, rest).makespan),
    plain: plainMakespan(schedule, costs),
    equal: {
      ...plannedOf(compared),
      makespan: compared.makespan,
      plain: plainMakespan(
        compared.schedule,
        compared.price(compared.levels.map(({ cost }) => cost), compared.schedule.placement),
      ),
    },
    leftOut,
  };
}

/** What runs of it. */
function plannedOf({ schedule, parts, levels }: Found): Planned {
  return { schedule, parts, recompute: levels.map((each) => each.recompute), sums: levels.map((each) => each.sums) };
}

/** Equal times within rounding: the one that holds less, then the one of fewer stages. */
function byMakespan(a: Fit, b: Fit): number {
  if (Math.abs(a.makespan - b.makespan) > 1e-9 * a.makespan) return a.makespan - b.makespan;
  return Math.max(...a.peak) - Math.max(...b.peak) || a.recipe.stages - b.recipe.stages;
}
