/** The models of the 2BP paper (arXiv 2405.18047), measured as the paper did and as this project does. */
import { UserError } from "../../errors.ts";
import type { DeviceSet } from "../../gpu/devices.ts";
import { countParameters } from "../../models/model.ts";
import type { Pipeline } from "../../runtime/pipeline.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { blankBatch } from "../memory.ts";
import { ablatePaper } from "./ablation.ts";
import { paperCases } from "./cases.ts";
import { choosePaperSize } from "./choice.ts";
import { type PaperPeaks, predictPeaks } from "./memory.ts";
import { expectPaperOptions, type PaperOptions } from "./options.ts";
import type { PaperModelReport } from "./report.ts";
import { paperRunOf } from "./runs.ts";
import { scalePaper } from "./scaling.ts";
import { type PaperSetting, paperSettings, pipelineOf } from "./settings.ts";
import type { SizeTrial } from "./size.ts";
import { timeCases } from "./times.ts";
import { createStand, type Stand } from "./stand.ts";
import { isOfDevice } from "../throughput.ts";

/** Shares of the time. */
const shares = { scaling: 1 / 4, ablation: 1 / 4 };

/**
 * Measures a model of the 2BP paper, or the largest one of its shape that the devices can measure in the time there is.
 *
 * @param paper Name of the paper's model.
 * @throws {UserError} On names and options that are none, and where not even the smallest size fits.
 */
export async function measurePaper(paper: string, options: PaperOptions): Promise<PaperModelReport> {
  expectPaperOptions("measurePaper", options);
  const { parts, ms } = options, { takenApart } = paperRunOf(paper); // explains another name
  const end = performance.now() + ms;
  const isScaled = parts.includes("scaling"), isApart = takenApart && parts.includes("ablation");
  const later = isApart ? shares.ablation * ms : 0;
  const measured = await measureSize(paper, { ...options, ms: ms - later - (isScaled ? shares.scaling * ms : 0) });
  const name = String(measured.model.name);
  /** The rest, for one part of it. */
  const rest = (after: number) => ({ ...options, ms: Math.max(1, end - performance.now() - after) });
  return {
    ...measured,
    ...parts.includes("memory") ? { paperPeaks: await predictPaper(paper, options) } : {},
    ...isScaled ? { scaling: await scalePaper(name, rest(later), measured) } : {},
    ...isApart ? { ablation: await ablatePaper(name, rest(0), measured.rate) } : {},
  };
}

/** Measures step times and peaks, of the largest size that there is memory and time for. */
async function measureSize(paper: string, options: PaperOptions): Promise<PaperModelReport> {
  const { open, devices, onPhase } = options;
  const end = performance.now() + options.ms;
  const stand = await createStand(() => open(devices));
  const settings = paperSettings(stand.set, options);
  const failed: SizeTrial[] = [];
  try {
    for (let { sizes } = options;;) {
      const left = (): PaperOptions => ({ ...options, sizes, ms: end - performance.now() });
      const choice = sizes.length > 1 || failed.length > 0 ? await choosePaperSize(stand, settings, left()) : undefined;
      const model = choice?.model ?? sizes[0];
      try {
        onPhase?.(model);
        const setting = await settings(model);
        const size = choice ? { size: { ...choice, tried: [...choice.tried, ...failed] } } : {};
        return { paper, ...await stand.guarded(() => measureModel(stand, model, setting, left())), ...size };
      } catch (error) {
        if (!isOfDevice(error)) throw error;
        const message = (error as Error).message;
        const smaller = sizes.slice(sizes.indexOf(model) + 1);
        if (smaller.length === 0) {
          throw new UserError(`${model} does not run on these devices: ${message}`, { cause: error });
        }
        const { bytes, leftMs } = choice!.tried.find((trial) => trial.model === model)!;
        failed.unshift({ model, bytes, leftMs, reason: "device", message });
        sizes = smaller;
      }
    }
  } finally {
    stand.close();
  }
}

/** Measures one model as it is. */
async function measureModel(
  stand: Stand,
  name: string,
  setting: PaperSetting,
  options: PaperOptions,
): Promise<Omit<PaperModelReport, "paper" | "size">> {
  const { parts, source, policies, steps, repeats, onPhase, onStep, ms } = options;
  const end = performance.now() + ms;
  const { run, place, cases, peaks: predicted } = setting;
  const { set } = stand, pipeline = stand.pipeline(name, pipelineOf(name, setting, options.seed)), { model } = pipeline;
  const timed = parts.includes("throughput")
    ? await timeCases(set, pipeline, cases, {
      ...{ source: source(model), steps, repeats, onStep },
      onPhase: (phase) => onPhase?.(`${name}: ${phase}`),
      ms: end - performance.now(),
      after: parts.includes("memory") ? policies.length - 1 : 0,
    })
    : undefined;
  const peaks: PaperPeaks[] = [];
  if (parts.includes("memory")) {
    onPhase?.(`${name}: memory`);
    const rows = timed?.throughput.flatMap(({ rows }) => rows) ?? [];
    for (const { base, splits, samples } of cases) {
      for (const schedule of [base, ...splits]) {
        const known = rows.find((row) => row.schedule === schedule.name && row.policy === schedule.policy);
        const measured = known?.peakBytes ?? await measurePeaks(set, pipeline, schedule, samples);
        peaks.push({ ...predicted[peaks.length], measured });
        onStep?.();
      }
    }
  }
  return {
    model: { name, parameters: countParameters(model), ...model.configuration },
    mode: set.mode,
    devices: set.devices.length,
    adapter: set.adapter,
    precision: place.precision,
    paperPrecision: run.precision,
    ...timed,
    ...(peaks.length > 0 ? { peaks } : {}),
  };
}

/** Peaks of a second step: in the first, staging buffers are still being made. */
async function measurePeaks(
  set: DeviceSet,
  pipeline: Pipeline,
  schedule: Schedule,
  samples: number,
): Promise<number[]> {
  const batch = blankBatch(pipeline.model, samples * sizesOf(schedule).microbatches);
  set.devices.forEach(({ pool }) => pool.trim()); // of other schedules
  await pipeline.step(schedule, batch);
  return (await pipeline.step(schedule, batch)).peaks.map(({ total }) => total);
}

/** Predicts the peaks of a model of the paper in its own size, in the precision of its run, on GPUs of their own. */
export async function predictPaper(
  name: string,
  options: Pick<PaperOptions, "devices" | "schedules" | "policies">,
): Promise<PaperPeaks[]> {
  const run = paperRunOf(name), place = { precision: run.precision };
  return await predictPeaks(name, run, await paperCases(name, run, options, place), place);
}
