/** What is run of a model of the 2BP paper: its schedules without and with 2BP, with the paper's samples, and the work in them. */
import { freemem } from "node:os";
import type { DeviceSet, Mode } from "../gpu/devices.ts";
import { createModel } from "../models/registry.ts";
import { stageFlops } from "../runtime/partition.ts";
import { createPipeline, type Pipeline, type Precision } from "../runtime/pipeline.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { generate } from "../schedules/generators/generate.ts";
import { simulate } from "../schedules/price/simulate.ts";
import type { PolicyText, Schedule } from "../schedules/schedule.ts";
import { twoStage } from "../schedules/transforms/two_stage.ts";
import { type MemoryOptions, predictMemory } from "./memory.ts";
import { type PaperRun, paperRunOf, paperSamples } from "./paper_runs.ts";
import { stageMemories } from "./stage_memory.ts";
import type { Variant } from "./variant.ts";

/** One schedule of the paper, without 2BP and with it by each policy. */
export interface PaperCase {
  /** Without. */
  readonly base: Schedule;
  /** With, one for each policy. */
  readonly splits: readonly Schedule[];
  /** Samples in a micro-batch. */
  readonly samples: number;
}

/** What cases are made of. */
export interface PaperCasesOptions {
  /** Number of ranks. */
  readonly devices: number;
  /** Names of schedules of the paper. */
  readonly schedules: readonly string[];
  /** When W runs. */
  readonly policies: readonly PolicyText[];
}

/** Where something is run, as far as shapes and memory depend on it. */
export type Place = Pick<MemoryOptions, "software" | "subgroupSize"> & { readonly precision: Precision };

/** The place that a set of devices is for a run: f32 where it would be mixed and a device has no f16. */
export function placeOf({ devices }: DeviceSet, { precision }: PaperRun): Place {
  const { software, subgroupSize } = devices[0].gpu.info;
  const canHalf = devices.every(({ gpu }) => gpu.info.f16);
  return { software, subgroupSize, precision: canHalf ? precision : "f32" };
}

/** Whether ranks share memory, and how many bytes there are: `bytes` where that is given, Infinity where nobody knows. */
export function roomOf({ mode, devices: [{ gpu }] }: DeviceSet, bytes?: number): { shared: boolean; bytes: number } {
  const { software } = gpu.info;
  return { shared: software || mode === "virtual", bytes: bytes ?? (software ? freemem() : Infinity) };
}

/** The cases of a model: how it was run, or the model whose shape it has, is `run`. */
export async function paperCases(
  model: string,
  run: PaperRun,
  { devices, schedules, policies }: PaperCasesOptions,
  place: Place,
): Promise<PaperCase[]> {
  return await Promise.all(schedules.map(async (name) => {
    const base = generate(name, { devices });
    const samples = paperSamples(run, base);
    const stages = policies.some((policy) => /^(lean|cap)/.test(policy))
      ? await stageMemories(createModel(model), { ...place, optimizer: run.optimizer, samples, stages: devices })
      : [];
    const memory = stages.length > 0 ? (stage: number) => stages[stage] : undefined;
    return { base, samples, splits: policies.map((policy) => twoStage(base, { policy, memory })) };
  }));
}

/** Peaks of one schedule: the most bytes at once on each rank. */
export interface PaperPeaks extends Variant {
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** From shapes alone. */
  readonly predicted: readonly number[];
  /** What buffers must be allowed to take for that, free ones of an action under way included; see `RankPeak.needed`. */
  readonly needed: readonly number[];
  /** Of a step that was run. */
  readonly measured?: readonly number[];
}

/** Predicts the peaks of all schedules of the cases. */
export async function predictPeaks(
  model: string,
  { optimizer }: PaperRun,
  cases: readonly PaperCase[],
  place: Place,
): Promise<PaperPeaks[]> {
  const rows: PaperPeaks[] = [];
  for (const { base, splits, samples } of cases) {
    for (const schedule of [base, ...splits]) {
      const peaks = await predictMemory(createModel(model), schedule, samples, { ...place, optimizer });
      rows.push({
        ...variantOf(schedule),
        samples,
        predicted: peaks.map(({ total }) => total),
        needed: peaks.map(({ needed }) => needed),
      });
    }
  }
  return rows;
}

/** Bytes of the hungriest of some schedules: of all ranks where they share memory, else of the fullest. */
export function needOf(peaks: readonly PaperPeaks[], shared: boolean): number {
  const total = (ranks: readonly number[]) => shared ? ranks.reduce((sum, peak) => sum + peak, 0) : Math.max(...ranks);
  return Math.max(...peaks.map(({ needed }) => total(needed)));
}

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

/** What a row says of its schedule. */
export function variantOf(schedule: Schedule): Variant {
  const { name, policy } = schedule;
  const { split: twoStage, width } = sizesOf(schedule);
  return { schedule: name, twoStage, ...(policy ? { policy } : {}), width };
}

/** Floating-point operations of a micro-batch, F, I and W, on all stages together. */
export function workOf(model: string, samples: number): number {
  const { layers, inputShape } = createModel(model);
  return stageFlops(layers, inputShape(samples));
}

/**
 * Floating-point operations that pass in a step one after the other: all of them on virtual devices, which take turns; on real ones
 * the share that a step of equal costs takes of its work.
 */
export function stepWork(work: number, schedule: Schedule, mode: Mode): number {
  const all = work * sizesOf(schedule).microbatches;
  if (mode === "virtual") return all;
  const { makespan, busy } = simulate(schedule);
  return all * makespan / busy.reduce((sum, time) => sum + time, 0);
}
