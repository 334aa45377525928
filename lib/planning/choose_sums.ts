/** Chooses who makes the sums that only W reads, for a schedule that is given. */
import type { Layer } from "../layers/layer.ts";
import { type Sums, sumsMakers } from "../layers/sums.ts";
import { stageMemories, type StageMemoryOptions } from "../measure/stage_memory.ts";
import type { Model } from "../models/model.ts";
import { partition } from "../runtime/partition.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { fit, type Level } from "./fit.ts";
import { stageWork } from "./stage_work.ts";

/** What the choice is for. */
export interface ChooseSumsOptions
  extends Omit<StageMemoryOptions, "parts" | "placement" | "stages" | "sums" | "width"> {
  /** The layers of each stage; by default cut by work. */
  readonly parts?: readonly (readonly Layer[])[];
  /** The most bytes that a device may hold; no limit by default. */
  readonly budget?: number;
}

/**
 * Who should make the sums of each stage for a step of `schedule` to be as short as it can be within a budget: I, or W. Both are
 * simulated on the layers' operation counts; a rank's stages are decided together, one rank after the other, as long as the step gets
 * shorter. Where nothing is gained, it is I, which holds less. Undefined where the schedule does not fit the budget either way.
 *
 * ```ts
 * import { adamw, createModel, generate, twoStage } from "twobp";
 * import { chooseSums } from "twobp/planning";
 *
 * const schedule = twoStage(generate("1f1b-1", { devices: 4 }));
 * console.log(await chooseSums(createModel("llama-tiny"), schedule, { samples: 4, optimizer: adamw() }));
 * ```
 *
 * @throws {UserError} As `stageMemories`.
 */
export async function chooseSums(
  model: Model,
  schedule: Schedule,
  options: ChooseSumsOptions,
): Promise<readonly Sums[] | undefined> {
  const { budget = Infinity, ...kind } = options, { placement } = schedule, { width } = sizesOf(schedule);
  const parts = options.parts ?? partition(model, placement);
  const levels: Level[][] = parts.map(() => []);
  for (const sums of sumsMakers) {
    const memories = await stageMemories(model, { ...kind, parts, placement, sums, width });
    const work = stageWork(model, { ...kind, parts, sums });
    work.forEach((cost, stage) => levels[stage].push({ recompute: "none", sums, cost, memory: memories[stage] }));
  }
  const recipe = { name: schedule.name, stages: placement.length, base: schedule, split: false };
  return fit(recipe, levels, budget)?.levels.map(({ sums }) => sums);
}
