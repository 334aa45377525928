/** What is run of a model of the 2BP paper: its schedules without and with 2BP, with the paper's samples, and the work in them. */
import type { Mode } from "../../gpu/devices.ts";
import { createModel } from "../../models/registry.ts";
import { stageFlops } from "../../runtime/partition.ts";
import type { Precision } from "../../runtime/pipeline.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import { generate } from "../../schedules/generators/generate.ts";
import { simulate } from "../../schedules/price/simulate.ts";
import type { PolicyText, Schedule } from "../../schedules/schedule.ts";
import { parsePolicy } from "../../schedules/transforms/policy.ts";
import { twoStage } from "../../schedules/transforms/two_stage.ts";
import type { MemoryOptions } from "../memory.ts";
import { type PaperRun, paperSamples } from "./runs.ts";
import { stageMemories } from "../stage_memory.ts";

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
export type Place = Pick<MemoryOptions, "kind" | "subgroupSize"> & { readonly precision: Precision };

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
    const stages = policies.some((policy) => ["lean", "cap"].includes(parsePolicy(policy).kind))
      ? await stageMemories(createModel(model), { ...place, optimizer: run.optimizer, samples, stages: devices })
      : [];
    const memory = stages.length > 0 ? (stage: number) => stages[stage] : undefined;
    return { base, samples, splits: policies.map((policy) => twoStage(base, { policy, memory })) };
  }));
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
