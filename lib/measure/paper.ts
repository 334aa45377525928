/** The models of the 2BP paper (arXiv 2405.18047), measured as the paper did and as this project does. */
import type { DeviceSet, Mode } from "../gpu/devices.ts";
import { countParameters, type Model } from "../models/model.ts";
import { createModel } from "../models/registry.ts";
import { createPipeline, type Pipeline, type Precision } from "../runtime/pipeline.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { generate } from "../schedules/generators/generate.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import type { BatchSource } from "../train/data.ts";
import type { Epoch } from "./epoch.ts";
import { blankBatch } from "./memory.ts";
import {
  needOf,
  type PaperCase,
  paperCases,
  type PaperPeaks,
  placeOf,
  predictPeaks,
  roomOf,
  stepWork,
  workOf,
} from "./paper_cases.ts";
import { paperRunOf } from "./paper_runs.ts";
import { chooseSize, type SizeChoice, type SizeTrial } from "./paper_size.ts";
import { fewestPairs, timeCases } from "./paper_times.ts";
import { isOfDevice } from "./throughput.ts";
import type { ThroughputReport } from "./throughput_report.ts";

/** What is measured of a model: step times, peaks, or both. */
export type PaperPart = "throughput" | "memory";

/** What to measure of a model, and how long. */
export interface PaperOptions {
  /** Number of ranks. */
  readonly devices: number;
  /** Opens so many devices, which are closed here. */
  readonly open: (devices: number) => Promise<DeviceSet>;
  /** Makes what a model is trained on. */
  readonly source: (model: Model) => BatchSource;
  /** Names of schedules of the paper. */
  readonly schedules: readonly string[];
  /** When W runs: the first is timed, of all of them there are peaks. */
  readonly policies: readonly PolicyText[];
  /** What to measure. */
  readonly parts: readonly PaperPart[];
  /** Models to choose from, the largest first: the largest that fits is taken. One alone is taken as it is. */
  readonly sizes: readonly string[];
  /** Milliseconds there are. At least {@link fewestPairs} pairs of each schedule are run all the same. */
  readonly ms: number;
  /** Bytes there are, in all where ranks share them, else on a device; by default what the machine has free for software drivers, and for GPUs what they give. */
  readonly bytes?: number;
  /** Steps in an epoch. */
  readonly steps: number;
  /** Pairs of steps of each schedule; by default as many as there is time for. */
  readonly repeats?: number;
  /** Of the parameters. */
  readonly seed: number;
  /** Told what begins. */
  readonly onPhase?: (phase: string) => void;
  /** Called after each step. */
  readonly onStep?: () => void;
}

/** What was measured of a model. */
export interface PaperModelReport {
  /** The paper's model that was asked for. */
  readonly paper: string;
  /** Name, number of parameters and sizes of the model that was run. */
  readonly model: Readonly<Record<string, string | number>>;
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of ranks. */
  readonly devices: number;
  /** What they are. */
  readonly adapter: string;
  /** What tensors held. */
  readonly precision: Precision;
  /** What they hold in the paper's run; another than `precision` where the device has no f16. */
  readonly paperPrecision: Precision;
  /** How the size was found; absent where there was no choice. */
  readonly size?: SizeChoice;
  /** Interleaved pairs: a report for each number of samples in a micro-batch. */
  readonly throughput?: readonly ThroughputReport[];
  /** As the paper measures. */
  readonly epochs?: readonly Epoch[];
  /** Floating-point operations a second, on one device, while the pairs were run. */
  readonly rate?: number;
  /** Peaks of the model that was run. */
  readonly peaks?: readonly PaperPeaks[];
}

/**
 * Measures one model of the 2BP paper, or the largest one of its shape that the devices can measure in the time there is.
 *
 * @throws {UserError} On names and sizes that are none, and where not even the smallest size fits.
 */
export async function measurePaper(options: PaperOptions): Promise<PaperModelReport> {
  const { open, devices, sizes, onPhase } = options;
  let set = await open(devices);
  /** Runs something; after an error of a device, which may be lost, there are new ones. */
  async function guarded<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      if (isOfDevice(error)) {
        set.close();
        set = await open(devices);
      }
      throw error;
    }
  }
  try {
    if (sizes.length === 1) return await guarded(() => measureModel(set, sizes[0], options));
    const end = performance.now() + options.ms;
    let candidates = sizes;
    const failed: SizeTrial[] = [];
    for (;;) {
      onPhase?.(`${sizes[0]}: choosing the size`);
      const choice = await choose(() => set, guarded, { ...options, sizes: candidates, ms: end - performance.now() });
      const size = { ...choice, tried: [...choice.tried, ...failed] };
      try {
        const rest = { ...options, ms: end - performance.now() };
        return { ...await guarded(() => measureModel(set, choice.model, rest)), size };
      } catch (error) {
        const at = candidates.indexOf(choice.model);
        if (!isOfDevice(error) || at === candidates.length - 1) throw error;
        const { bytes } = choice.tried.find(({ model }) => model === choice.model)!;
        failed.unshift({ model: choice.model, bytes, reason: "device", message: (error as Error).message });
        candidates = candidates.slice(at + 1);
      }
    }
  } finally {
    set.close();
  }
}

/** The size to measure. */
async function choose(
  set: () => DeviceSet,
  guarded: <T>(run: () => Promise<T>) => Promise<T>,
  options: PaperOptions,
): Promise<SizeChoice> {
  const { sizes, ms, seed, source, devices } = options;
  const { mode } = set();
  const { shared, bytes } = roomOf(set(), options.bytes);
  const about = async (name: string) => {
    const run = paperRunOf(name), place = placeOf(set(), run);
    const cases = await paperCases(name, run, options, place);
    return { run, place, cases, samples: Math.min(...cases.map(({ samples }) => samples)) };
  };
  return await chooseSize({
    models: sizes,
    bytes,
    ms: Math.max(1, ms),
    isOfDevice,
    async need(name) {
      const { run, place, cases } = await about(name);
      return needOf(await predictPeaks(name, run, cases, place), shared);
    },
    async work(name) {
      const { cases, samples } = await about(name);
      const all = cases.reduce((sum, each) => sum + caseWork(name, each, options, mode), 0);
      return { all, probe: 2 * workOf(name, samples) };
    },
    async rate(name) {
      const { run, place: { precision }, samples } = await about(name);
      const model = createModel(name), naive = generate("naive", { devices, microbatches: 1 });
      return await guarded(async () => {
        const pipeline = createPipeline(set(), model, { optimizer: run.optimizer, seed, precision });
        try {
          const batches = source(model);
          await pipeline.step(naive, await batches.next(samples)); // compiles
          const { wallMs } = await pipeline.step(naive, await batches.next(samples));
          return workOf(name, samples) / wallMs * 1000;
        } finally {
          pipeline.close();
        }
      });
    },
  });
}

/** Operations of the fewest steps that {@link measureModel} takes of a case. */
function caseWork(
  model: string,
  { base, splits, samples }: PaperCase,
  { parts, steps }: PaperOptions,
  mode: Mode,
): number {
  const work = workOf(model, samples);
  const of = (schedules: readonly Schedule[], times: number) =>
    times * schedules.reduce((sum, schedule) => sum + stepWork(work, schedule, mode), 0);
  const timed = parts.includes("throughput") ? of([base, splits[0]], 1 + 1 + steps + fewestPairs) : 0; // warm-up, epoch, pairs
  return timed + (parts.includes("memory") ? of([base, ...splits], 2) : 0);
}

/** Measures one model as it is. */
async function measureModel(set: DeviceSet, name: string, options: PaperOptions): Promise<PaperModelReport> {
  const { seed, parts, source, sizes, policies, steps, repeats, onPhase, onStep, ms } = options;
  const end = performance.now() + ms;
  const run = paperRunOf(name), model = createModel(name), place = placeOf(set, run);
  const cases = await paperCases(name, run, options, place);
  const { precision } = place;
  const pipeline = createPipeline(set, model, { optimizer: run.optimizer, seed, precision });
  try {
    const batches = source(model);
    const timed = parts.includes("throughput")
      ? await timeCases(set, pipeline, cases, {
        ...{ source: batches, steps, repeats, onStep },
        onPhase: (phase) => onPhase?.(`${name}: ${phase}`),
        ms: end - performance.now(),
        after: parts.includes("memory") ? policies.length + 1 : 0,
      })
      : {};
    const peaks: PaperPeaks[] = [];
    if (parts.includes("memory")) {
      onPhase?.(`${name}: memory`);
      const predicted = await predictPeaks(name, run, cases, place);
      for (const { base, splits, samples } of cases) {
        for (const schedule of [base, ...splits]) {
          peaks.push({ ...predicted[peaks.length], measured: await measurePeaks(set, pipeline, schedule, samples) });
          onStep?.();
        }
      }
    }
    return {
      paper: sizes[0],
      model: { name, parameters: countParameters(model), ...model.configuration },
      mode: set.mode,
      devices: set.devices.length,
      adapter: set.adapter,
      precision,
      paperPrecision: run.precision,
      ...timed,
      ...(peaks.length > 0 ? { peaks } : {}),
    };
  } finally {
    pipeline.close();
  }
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
  const run = paperRunOf(name), place = { software: false, subgroupSize: 0, precision: run.precision };
  return await predictPeaks(name, run, await paperCases(name, run, options, place), place);
}
