/** Chooses schedule, policy and recomputation for a model under a budget of memory. */
import { formatBytes, parseBytes } from "../bytes.ts";
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { predictMemory } from "../measure/memory.ts";
import { expectModel, type Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { budgetRule, type Precision, precisionRule } from "../runtime/pipeline.ts";
import type { RecomputeText } from "../runtime/recompute.ts";
import { callback, expectFields, flag, optional, positive, type Rules, whole } from "../rules.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { adamw, optimizerRule, type OptimizerSpec } from "../train/optimizers.ts";
import { type Fit, fit, type Level } from "./fit.ts";
import { levelsOf } from "./levels.ts";
import { type Recipe, recipesFor } from "./recipes.ts";

/** How often a recipe is fitted into less where it needs more than it should. */
const mostTries = 4;

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
  /** Simulated time of a step, in floating-point operations of one device. */
  readonly makespan: number;
  /** Bytes that each rank needs, as predicted: see `RankPeak.needed`. */
  readonly peak: readonly number[];
  /** The fastest plan without a budget. */
  readonly unlimited: { readonly schedule: Schedule; readonly makespan: number; readonly peak: readonly number[] };
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
  onProgress: optional(callback),
};

/**
 * The fastest schedule, policy of 2BP and recomputation that need no more memory than a budget on any device. Nothing is
 * run: memory is predicted from shapes, time simulated on the layers' operation counts (so it knows nothing of batching
 * gains, transfers or memory-bound layers). Every schedule of the zoo that is defined for these sizes is tried, with and without
 * 2BP; within a schedule each rank recomputes as little as it takes. Not an exhaustive search: all stages of a rank recompute
 * alike, in steps of a quarter of their layers.
 *
 * ```ts
 * import { createModel, createPipeline, adamw, openDevices, plan, textSource } from "twobp";
 *
 * const model = createModel("llama-tiny");
 * const { schedule, parts, recompute } = await plan(model, { devices: 2, microbatches: 4, budget: 12 * 2 ** 20 });
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, model, { optimizer: adamw(), placement: schedule.placement, parts, recompute });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * console.log((await pipeline.step(schedule, text.next(4))).loss);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} When nothing fits: it names a budget that would do, and is the least to about half a per cent. On an option out of its range, or an unknown one.
 */
export async function plan(model: Model, options: PlanOptions): Promise<TrainingPlan> {
  expectModel("plan", model);
  expectFields("plan", options, rules);
  const { devices, microbatches, budget, samples = 1, optimizer = adamw() } = options;
  const { precision = "f32", software = false, subgroupSize = 0 } = options;
  const kind = { optimizer, precision, software, subgroupSize };
  const recipes = recipesFor(devices, microbatches, model.layers.length);
  if (recipes.length === 0) {
    throw new UserError(`${model.name} has ${model.layers.length} layers, which cannot be cut into ${devices} stages`);
  }
  const stagings = new Map<number, { parts: Layer[][]; levels: Level[][] }>();
  const stageCounts = [...new Set(recipes.map(({ stages }) => stages))];
  for (const [index, stages] of stageCounts.entries()) {
    const parts = partition(model, stages);
    const tell = (done: number, all: number) => options.onProgress?.((index + done / all) / stageCounts.length);
    stagings.set(stages, { parts, levels: await levelsOf(model, parts, { samples, ...kind }, tell) });
  }
  const fitted = (recipe: Recipe, bytes: number) => fit(recipe, stagings.get(recipe.stages)!.levels, bytes);
  /** Of the whole step on shapes, which knows what the model of single stages leaves out: see `verified`. */
  const peaksOf = async ({ recipe, schedule, levels }: Fit) => {
    const { parts } = stagings.get(recipe.stages)!;
    const recompute = levels.map((level) => level.recompute);
    const peaks = await predictMemory(model, schedule, samples, { ...kind, parts, recompute });
    return peaks.map(({ needed }) => needed);
  };
  const fastest = recipes.map((recipe) => fitted(recipe, Infinity)!).sort(byMakespan)[0];
  // The model of single stages counts what is in use, and may be a per cent off; what an action needs besides, buffers that it
  // has used and cannot give up before it is submitted, is up to a tenth more. So the best recipe is held against the whole step,
  // and where that is over the budget, fitted once more into as much less.
  const verified = async (bytes: number) => {
    const fits = recipes.flatMap((recipe) => {
      const fit = fitted(recipe, bytes);
      return fit ? [{ fit, target: bytes, tries: 1 }] : [];
    });
    while (fits.length > 0) {
      fits.sort((a, b) => byMakespan(a.fit, b.fit));
      const { fit: chosen, target, tries } = fits.shift()!;
      const peak = await peaksOf(chosen);
      const over = Math.max(...peak) / bytes;
      if (over <= 1) return { chosen, peak };
      let less = target / Math.max(over, 1.002);
      for (let next = tries + 1; next <= mostTries; next++) {
        const fit = fitted(chosen.recipe, less);
        if (fit) {
          fits.push({ fit, target: less, tries: next });
          break;
        }
        less = (less + target) / 2;
      }
    }
  };
  const found = await verified(budget);
  if (found) return await result(found.chosen, found.peak);
  let [tooLittle, enough] = [budget, Math.max(...await peaksOf(fastest))];
  while (enough - tooLittle > enough / 500) {
    const middle = (tooLittle + enough) / 2;
    if (await verified(middle)) enough = middle;
    else tooLittle = middle;
  }
  // More is not always better, so what fits is found step by step, and tried as it will be read.
  const named = (tenths: number) => `${tenths / 10}MiB`;
  let least = Math.ceil(enough / 2 ** 20 * 10);
  while (!await verified(parseBytes(named(least)))) least += Math.ceil(least / 500);
  throw new UserError(
    `${model.name} on ${devices} devices with ${microbatches} micro-batches of ${samples} does not fit ` +
      `${formatBytes(budget)} a device, whatever is recomputed: the least that would do is ${named(least)}`,
  );

  async function result({ recipe, schedule, levels, makespan }: Fit, peak: readonly number[]): Promise<TrainingPlan> {
    return {
      schedule,
      parts: stagings.get(recipe.stages)!.parts,
      recompute: levels.map((level) => level.recompute),
      makespan,
      peak,
      unlimited: { schedule: fastest.schedule, makespan: fastest.makespan, peak: await peaksOf(fastest) },
    };
  }
}

/** Equal times within rounding: the one that holds less, then the one of fewer stages. */
function byMakespan(a: Fit, b: Fit): number {
  if (Math.abs(a.makespan - b.makespan) > 1e-9 * a.makespan) return a.makespan - b.makespan;
  return Math.max(...a.peak) - Math.max(...b.peak) || a.recipe.stages - b.recipe.stages;
}
