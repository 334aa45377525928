/** Where the gain of 2BP on a model of its paper comes from: the ablation of those schedules whose bubble 2BP fills most. */
import type { Pipeline } from "../../runtime/pipeline.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import type { BatchSource } from "../../train/data.ts";
import { type AblationReport, countAblationSteps, measureAblation } from "../ablation/measure.ts";
import { stepWork, workOf } from "./cases.ts";
import type { PaperOptions } from "./options.ts";
import { paperSettings, pipelineOf } from "./settings.ts";
import { fewestPairs } from "./times.ts";
import { median } from "../statistics.ts";

/** Schedules that are taken apart: 1F1B-1 has the largest gain in theory, and 1F1B-2 twice its micro-batches in a W. */
const takenApart = ["1f1b-1", "1f1b-2"];

/** Rounds that are enough. */
const mostRounds = 51;

/** How much longer the steps of the upper rungs may be, for an estimate of the time. */
const slower = 1.5;

/**
 * Takes the gains of a model apart, schedule after schedule, as long as there is time. The stall is `options.stall` times a backward
 * of the last rank, as one step without 2BP has it here.
 *
 * @param rate Floating-point operations a second on one device, where that is known.
 */
export async function ablatePaper(model: string, options: PaperOptions, rate?: number): Promise<AblationReport[]> {
  const { devices, open, source, seed, schedules, stall, ms, onPhase, onStep } = options;
  const end = performance.now() + ms;
  const names = schedules.filter((name) => takenApart.includes(name));
  if (names.length === 0) return [];
  const set = await open(devices);
  try {
    const setting = await paperSettings(set, { ...options, schedules: names })(model);
    const pipeline = pipelineOf(model, setting, seed)(set);
    try {
      const reports: AblationReport[] = [];
      for (const [at, { base, samples }] of setting.cases.entries()) {
        onPhase?.(`${model}: ${base.name} taken apart`);
        const batches = source(pipeline.model);
        const stallMs = stall * await backwardMs(pipeline, base, samples, batches);
        const left = (end - performance.now()) / (names.length - at);
        const step = slower * stepWork(workOf(model, samples), base, set.mode) / (rate ?? Infinity) * 1000;
        const most = Math.floor(left / (countAblationSteps({ repeats: 0 }) * step)) - 1;
        reports.push(
          await measureAblation(set, pipeline, {
            ...{ schedule: base.name, samples, stallMs, source: batches, onStep: () => onStep?.() },
            repeats: options.repeats ?? (rate ? Math.max(fewestPairs, Math.min(mostRounds, most)) : fewestPairs),
          }),
        );
      }
      return reports;
    } finally {
      pipeline.close();
    }
  } finally {
    set.close();
  }
}

/** Milliseconds of a backward of the last rank; without timestamps what a step of equal costs would spend in one. */
async function backwardMs(pipeline: Pipeline, base: Schedule, samples: number, source: BatchSource): Promise<number> {
  const { devices, microbatches } = sizesOf(base), rank = devices - 1;
  const draw = async () => await source.next(samples * microbatches);
  await pipeline.step(base, await draw()); // compiles
  const { intervals, wallMs } = await pipeline.step(base, await draw());
  if (!intervals) return wallMs * 2 / 3 / (microbatches + rank);
  return median(
    base.actions[rank].flatMap(({ kind }, index) => {
      const { start, end } = intervals[rank][index];
      return kind === "B" ? [end - start] : [];
    }),
  );
}
