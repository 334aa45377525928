/**
 * The fastest schedule, policy and recomputation under a budget of memory, for a model's own counted work. Needs no device.
 *
 * ```ts
 * import { createModel } from "twobp/models";
 * import { plan } from "twobp/planning";
 *
 * const found = await plan(createModel("llama-tiny"), { devices: 2, microbatches: 4, budget: 12 * 2 ** 20 });
 * console.log(found.schedule.name, found.schedule.policy, found.recompute);
 * ```
 *
 * @module
 */
export {
  atlasCaps,
  type AtlasEntry,
  atlasGrid,
  type AtlasPoint,
  atlasRanking,
  type AtlasRow,
  atlasRow,
} from "./atlas.ts";
export { type Atlas, formatAtlas, readAtlas } from "./atlas_file.ts";
export { chooseSums, type ChooseSumsOptions } from "./choose_sums.ts";
export type { LeftOut } from "./cluster_levels.ts";
export type { Planned, PlanOptions, TrainingPlan } from "./options.ts";
export { plan } from "./plan.ts";
export { stageWork, type StageWorkOptions } from "./stage_work.ts";
