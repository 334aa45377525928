/** What is known of a model of the 2BP paper before it is run on some devices. */
import type { DeviceSet } from "../../gpu/devices.ts";
import { createModel } from "../../models/registry.ts";
import { createPipeline, type Pipeline } from "../../runtime/pipeline.ts";
import { type PaperCase, paperCases, type PaperCasesOptions, type Place } from "./cases.ts";
import { needOf, type PaperPeaks, predictPeaks, roomOf } from "./memory.ts";
import { type PaperRun, paperRunOf } from "./runs.ts";

/** What is known of a model before it is run. */
export interface PaperSetting {
  /** How it was run, or the model whose shape it has. */
  readonly run: PaperRun;
  /** Where it will be run. */
  readonly place: Place;
  /** What will be run. */
  readonly cases: readonly PaperCase[];
  /** Predicted. */
  readonly peaks: readonly PaperPeaks[];
  /** The most bytes that buffers of a rank may take, so that all ranks together stay within what there is; absent where nobody knows that. */
  readonly budget?: number;
}

/** The settings of models on such devices, each made once. */
export function paperSettings(
  set: DeviceSet,
  options: PaperCasesOptions & { readonly bytes?: number },
): (model: string) => Promise<PaperSetting> {
  const made = new Map<string, Promise<PaperSetting>>();
  const { shared, bytes } = roomOf(set, options.bytes);
  const make = async (model: string): Promise<PaperSetting> => {
    const run = paperRunOf(model), place = placeOf(set, run);
    const cases = await paperCases(model, run, options, place);
    const peaks = await predictPeaks(model, run, cases, place);
    const budget = shared ? Math.max(bytes / options.devices, needOf(peaks, false)) : bytes;
    return { run, place, cases, peaks, ...(budget < Infinity ? { budget } : {}) };
  };
  return (model) => {
    const setting = made.get(model) ?? make(model);
    made.set(model, setting);
    return setting;
  };
}

/** Makes the pipeline of a model in its setting. */
export function pipelineOf(
  model: string,
  { run: { optimizer }, place: { precision }, budget }: PaperSetting,
  seed: number,
): (set: DeviceSet) => Pipeline {
  return (set) => createPipeline(set, createModel(model), { optimizer, precision, budget, seed });
}

/** The place that a set of devices is for a run: f32 where it would be mixed and a device has no f16. */
function placeOf({ devices }: DeviceSet, { precision }: PaperRun): Place {
  const { kind, subgroupSize } = devices[0].gpu.info;
  const canHalf = devices.every(({ gpu }) => gpu.info.f16);
  return { kind, subgroupSize, precision: canHalf ? precision : "f32" };
}
