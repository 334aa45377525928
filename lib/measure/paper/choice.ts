/** The size of a model of the 2BP paper that the devices of a stand can measure in the time there is. */
import { countParameters } from "../../models/model.ts";
import { createModel } from "../../models/registry.ts";
import { generate } from "../../schedules/generators/generate.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { type PaperCase, stepWork, workOf } from "./cases.ts";
import { needOf, roomOf } from "./memory.ts";
import type { PaperOptions } from "./options.ts";
import { type PaperSetting, pipelineOf } from "./settings.ts";
import { chooseSize, type SizeChoice } from "./size.ts";
import { fewestPairs } from "./times.ts";
import type { Stand } from "./stand.ts";
import { isOfDevice } from "../throughput.ts";

/** Chooses among `options.sizes`; the pipeline that was tried last stays on the stand. */
export async function choosePaperSize(
  stand: Stand,
  settings: (model: string) => Promise<PaperSetting>,
  options: PaperOptions,
): Promise<SizeChoice> {
  const { sizes, ms, source, devices, onPhase } = options;
  const { mode } = stand.set;
  const { shared, bytes } = roomOf(stand.set, options.bytes);
  /** Samples of the smallest micro-batch. */
  const fewest = ({ cases }: PaperSetting) => Math.min(...cases.map(({ samples }) => samples));
  return await chooseSize({
    models: sizes,
    bytes,
    ms: Math.max(1, ms),
    isOfDevice,
    async need(name) {
      onPhase?.(`does ${name} fit?`);
      return needOf((await settings(name)).peaks, shared);
    },
    async work(name) {
      const setting = await settings(name);
      return {
        all: setting.cases.reduce((sum, each) => sum + caseWork(name, each, options), 0),
        probe: probeSteps * workOf(name, fewest(setting)),
        parameters: countParameters(createModel(name)),
      };
    },
    async rate(name) {
      const setting = await settings(name), samples = fewest(setting);
      const start = performance.now();
      return await stand.guarded(async () => {
        const pipeline = stand.pipeline(name, pipelineOf(name, setting, options.seed)),
          batches = source(pipeline.model);
        const setUpMs = performance.now() - start;
        const naive = generate("naive", { devices, microbatches: 1 });
        let wallMs = NaN; // of the last step: the first one compiles
        for (let step = 0; step < probeSteps; step++) {
          ({ wallMs } = await pipeline.step(naive, await batches.next(samples)));
        }
        return { rate: workOf(name, samples) / wallMs * 1000, setUpMs };
      });
    },
  });

  /** Operations of the fewest steps that are measured of a case. */
  function caseWork(model: string, { base, splits, samples }: PaperCase, { parts, steps }: PaperOptions): number {
    const work = workOf(model, samples);
    const of = (schedules: readonly Schedule[], times: number) =>
      times * schedules.reduce((sum, schedule) => sum + stepWork(work, schedule, mode), 0);
    // A first step and pairs; and an epoch, after one step that does not count.
    const epoch = parts.includes("throughput") ? 1 + steps : 0;
    const timed = epoch || parts.includes("scaling") ? of([base, splits[0]], 1 + fewestPairs + epoch) : 0;
    // Peaks of what is timed are known from there.
    const more = parts.includes("throughput") ? splits.slice(1) : [base, ...splits];
    return timed + (parts.includes("memory") ? of(more, 2) : 0);
  }
}

/** Steps of one micro-batch with which a rate is measured. */
const probeSteps = 2;
