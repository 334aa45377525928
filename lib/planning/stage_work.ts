/** What each stage of a model computes, from shapes alone: the costs that plans are made with. */
import { type Layer, withSums } from "../layers/layer.ts";
import { sequential } from "../layers/sequential.ts";
import type { Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { type RecomputePolicy, withRecompute } from "../runtime/recompute.ts";
import { sumsOf, type SumsPolicy } from "../runtime/sums.ts";
import { expectValue, positive } from "../rules.ts";
import type { StageCost } from "../schedules/price/costs.ts";

/** What the model is cut into. */
export interface StageWorkOptions {
  /** Number of stages, where `parts` does not say it. */
  readonly stages?: number;
  /** The layers of each stage; by default cut by work. */
  readonly parts?: readonly (readonly Layer[])[];
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** What is recomputed instead of kept; nothing by default. */
  readonly recompute?: RecomputePolicy;
  /** Who makes the sums that only W reads; "i" by default. */
  readonly sums?: SumsPolicy;
}

/**
 * The work of F, I and W of a micro-batch on each stage, in floating-point operations, what is recomputed included. A device
 * spends them at much the same rate in all three, so they serve as costs where nothing has been measured.
 *
 * ```ts
 * import { createModel, generate, simulate, twoStage } from "twobp";
 * import { stageWork } from "twobp/planning";
 * import { stageCosts } from "twobp/schedules";
 *
 * const costs = stageCosts(stageWork(createModel("llama-7b"), { stages: 4, samples: 1 }));
 * const base = generate("1f1b-1", { devices: 4 });
 * console.log(simulate(base, costs).makespan / simulate(twoStage(base, { costs }), costs).makespan);
 * ```
 *
 * @throws {UserError} When `stages` or `samples` is no whole number of 1 or more, or there are fewer layers than stages.
 */
export function stageWork(model: Model, options: StageWorkOptions): readonly StageCost[] {
  const { samples, recompute, stages = 1, parts = partition(model, stages) } = options;
  expectValue("stageWork: samples", samples, positive);
  let shape = model.inputShape(samples);
  const sums = sumsOf(options.sums, parts.length);
  return withRecompute(parts, recompute).map((layers, stage) => {
    const layer = sequential(layers);
    const { f, i, w, b = i + w, ahead } = withSums(layer.flops(shape), sums[stage]);
    shape = layer.outputShape(shape);
    return { f, i, w, b, ...ahead !== undefined && { r: ahead } };
  });
}
