/** Chooses schedule, policy, recomputation and who makes sums for a model under a budget of memory. */
import { formatBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import type { Sums } from "../layers/sums.ts";
import { predictMemory } from "../measure/memory.ts";
import { expectModel, type Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { budgetRule, type Precision, precisionRule } from "../runtime/pipeline.ts";
import type { RecomputeText } from "../runtime/recompute.ts";
import { anything, callback, expectFields, flag, optional, positive, type Rules, whole } from "../rules.ts";
import type { Cluster } from "../schedules/price/cluster.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { adamw, optimizerRule, type OptimizerSpec } from "../train/optimizers.ts";
import { clusterLevels, clusterPrice, clusterRecipes, type LeftOut } from "./cluster_levels.ts";
import { type Fit, fit, leastBudget, type Level } from "./fit.ts";
import { levelsOf } from "./levels.ts";
import { type Recipe, recipesFor } from "./recipes.ts";

/** What a plan is for. */
export interface PlanOptions {
  /** Number of ranks. */
  readonly devices: number;
  /** Micro-batches in a step. */
  readonly microbatches: number;
  /** Bytes of each device: what `createPipeline` may be given as its budget. Infinity for no limit. */
  readonly budget: number;
  /** Samples in a micro-batch, 1 by default. */
  readonly samples?: number;
  /** AdamW by default: its moments take memory too. */
  readonly optimizer?: OptimizerSpec;
  /** f32 by default. */
  readonly precision?: Precision;
  /** Whether the devices are software drivers, and the lanes of their subgroups: other kernels need other workspaces. */
  readonly software?: boolean;
  /** 0, where they differ or are not known, by default. */
  readonly subgroupSize?: number;
  /**
   * What the stages, messages, hosts and ends of steps of these devices take, in place of counted work: of the same model, cut as
   * the plan cuts it, in the same precision, with as many samples in a micro-batch.
   */
  readonly cluster?: Cluster;
  /** Called with the share of the stages' memory models that are made, from 0 to 1: what takes the time. */
  readonly onProgress?: (share: number) => void;
}

/** What to run, and what it gives up. */
export interface TrainingPlan {
  /** For `pipeline.step`. */
  readonly schedule: Schedule;
  /** The layers of each stage, for `createPipeline`. */
  readonly parts: readonly (readonly Layer[])[];
  /** What each stage recomputes, for `createPipeline`. */
  readonly recompute: readonly RecomputeText[];
  /** Who makes the sums of each stage that only a delayed W reads, for `createPipeline`. */
  readonly sums: readonly Sums[];
  /** Simulated time of a step, in floating-point operations of one device; in milliseconds where a cluster was given. */
  readonly makespan: number;
  /** Bytes that each rank needs, as predicted: see `RankPeak.needed`. */
  readonly peak: readonly number[];
  /** The fastest plan without a budget. */
  readonly unlimited: { readonly schedule: Schedule; readonly makespan: number; readonly peak: readonly number[] };
  /** What was not tried, since the cluster that was given has no times for it. */
  readonly leftOut: readonly LeftOut[];
}

const rules: Rules<PlanOptions> = {
  devices: positive,
  microbatches: positive,
  budget: budgetRule,
  samples: optional(positive),
  optimizer: optional(optimizerRule),
  precision: optional(precisionRule),
  software: optional(flag),
  subgroupSize: optional(whole(0)),
  cluster: anything, // by `readCluster`
  onProgress: optional(callback),
};

/**
 * The fastest schedule, policy of 2BP, recomputation and maker of sums that need no more memory than a budget on any device. Nothing is
 * run: memory is predicted from shapes, time simulated on the layers' operation counts (so it knows nothing of batching
 * gains, transfers or memory-bound layers). Every schedule of the zoo that is defined for these sizes is tried, with and without
 * 2BP; within a schedule each rank recomputes as little as it takes. Not an exhaustive search: all stages of a rank recompute
 * alike, in steps of a quarter of their layers.
 *
 * With a `cluster`, time is what its stages, messages, hosts and tails take. Only schedules of its number of stages are tried then,
 * and of these the ones whose kinds of action it knows; `leftOut` names the others. A stage takes the same on whichever rank a
 * schedule places it; what it recomputes is added at the time that an operation of its F and B takes; sums are I's.
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
  const { devices, microbatches, budget, samples = 1, optimizer = adamw() } = options;
  const { precision = "f32", software = false, subgroupSize = 0, cluster } = options;
  const kind = { optimizer, precision, software, subgroupSize };
  const { recipes, leftOut } = cluster !== undefined
    ? clusterRecipes(model, cluster, devices, microbatches)
    : { recipes: recipesFor(devices, microbatches, model.layers.length), leftOut: [] };
  if (recipes.length === 0) {
    throw new UserError(`${model.name} has ${model.layers.length} layers, which cannot be cut into ${devices} stages`);
  }
  /** By placement: the layers of the stages, and what each of them may recompute. */
  const stagings = new Map<string, { parts: Layer[][]; levels: Level[][] }>();
  const placements = new Map(recipes.map(({ base: { placement } }) => [placement.join(), placement]));
  for (const [name, placement] of placements) {
    const parts = partition(model, placement.length), made = stagings.size;
    const tell = (done: number, all: number) => options.onProgress?.((made + done / all) / placements.size);
    const levels = await levelsOf(model, parts, { samples, placement, ...kind }, tell);
    stagings.set(name, { parts, levels: cluster ? clusterLevels(levels, cluster) : levels });
  }
  const stagingOf = ({ base: { placement } }: Recipe) => stagings.get(placement.join())!;
  const price = cluster && clusterPrice(cluster);
  const fitted = (bytes: number) =>
    recipes.flatMap((recipe) => fit(recipe, stagingOf(recipe).levels, bytes, price) ?? []).sort(byMakespan);
  const [fastest] = fitted(Infinity);
  const [found] = fitted(budget);
  if (!found) {
    const least = Math.min(...recipes.map((recipe) => leastBudget(recipe, stagingOf(recipe).levels)));
    throw new UserError(
      `${model.name} on ${devices} devices with ${microbatches} micro-batches of ${samples} ` +
        `${cluster ? `in the cluster's ${cluster.stages.length} stages ` : ""}does not fit ` +
        `${formatBytes(budget)} a device, whatever is recomputed: the least that would do is ` +
        `${Math.ceil(least / 2 ** 20 * 10) / 10}MiB`,
    );
  }
  const { recipe, schedule, levels, makespan, peak } = found;
  const { parts } = stagingOf(recipe), recompute = levels.map((level) => level.recompute);
  const sums = levels.map((level) => level.sums);
  // What the stages hold, and what the whole step needs on shapes, are one truth: the plan is held against it once.
  const whole = await predictMemory(model, schedule, samples, { ...kind, parts, recompute, sums });
  for (const [rank, { needed }] of whole.entries()) {
    if (needed <= peak[rank]) continue;
    throw new Error(`Rank ${rank} needs ${needed} bytes in a step of ${schedule.name}, and ${peak[rank]} were planned`);
  }
  const { schedule: first, makespan: shortest, peak: most } = fastest;
  return {
    schedule,
    parts,
    recompute,
    sums,
    makespan,
    peak,
    unlimited: { schedule: first, makespan: shortest, peak: most },
    leftOut,
  };
}

/** Equal times within rounding: the one that holds less, then the one of fewer stages. */
function byMakespan(a: Fit, b: Fit): number {
  if (Math.abs(a.makespan - b.makespan) > 1e-9 * a.makespan) return a.makespan - b.makespan;
  return Math.max(...a.peak) - Math.max(...b.peak) || a.recipe.stages - b.recipe.stages;
}
