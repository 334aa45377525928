/**
 * twobp: pipeline-parallel training research on WebGPU, with backward passes split in two (2BP).
 *
 * Plan a schedule, prove it correct, run it on several devices, measure it:
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, simulate, textSource, twoStage } from "twobp";
 *
 * const base = generate("1f1b-1", { devices: 2 });
 * const split = twoStage(base);
 * console.log(`simulated gain ${simulate(base).makespan / simulate(split).makespan}`);
 *
 * const set = await openDevices(2);
 * const model = createModel("llama-tiny");
 * const pipeline = createPipeline(set, model, { optimizer: adamw() });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * for (let step = 0; step < 3; step++) console.log(await pipeline.step(split, text.next(4)));
 * pipeline.close();
 * set.close();
 * ```
 *
 * These are the names that a first program uses. The rest lies under sub-paths: `twobp/schedules` (no GPU), `twobp/runtime`,
 * `twobp/models`, `twobp/layers`, `twobp/losses`, `twobp/ops`, `twobp/train`, `twobp/weights`, `twobp/measure`, `twobp/planning` and
 * `twobp/report`.
 *
 * @module
 */
export { UserError } from "./lib/errors.ts";

export { fromCsv, toCsv } from "./lib/schedules/csv/csv.ts";
export { generate, scheduleNames } from "./lib/schedules/generators/generate.ts";
export type { Schedule } from "./lib/schedules/schedule.ts";
export { schedulePair } from "./lib/schedules/transforms/pair.ts";
export { twoStage } from "./lib/schedules/transforms/two_stage.ts";
export { simulate } from "./lib/schedules/price/simulate.ts";
export { search } from "./lib/schedules/search/search.ts";
export { validate } from "./lib/schedules/check/validate.ts";

export { type DeviceSet, openDevices } from "./lib/gpu/devices.ts";
export type { Model } from "./lib/models/model.ts";
export { createModel, modelNames } from "./lib/models/registry.ts";
export { type Batch, textSource } from "./lib/train/data.ts";
export { imageFolder } from "./lib/train/image_folder.ts";
export { adamw, sgd } from "./lib/train/optimizers.ts";
export { createPipeline, type Pipeline } from "./lib/runtime/pipeline.ts";
export type { StepResult } from "./lib/runtime/step.ts";
export { loadWeights, saveWeights } from "./lib/weights/checkpoint.ts";

export { predictMemory } from "./lib/measure/memory.ts";
export { measureThroughput } from "./lib/measure/throughput.ts";
export { plan } from "./lib/planning/plan.ts";

export { ganttFigure } from "./lib/report/gantt.ts";
export { ganttText } from "./lib/report/gantt_text.ts";
export { runTimeline } from "./lib/report/run_timeline.ts";
export { show } from "./lib/report/show.ts";
export { table } from "./lib/report/show_table.ts";
