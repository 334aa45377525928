/** The largest model that a machine has memory for. */
import { type DeviceKind, deviceKinds } from "../gpu/kind.ts";
import { createModel } from "../models/registry.ts";
import { expectFields, filled, flag, oneOf, optional, positive, real, type Rules, whole } from "../rules.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { optimizerRule, type OptimizerSpec } from "../train/optimizers.ts";
import { predictMemory } from "./memory.ts";

/** What is to fit. */
export interface LargestOptions {
  /** Names of models, the preferred one first. */
  readonly models: readonly string[];
  /** All that will be run. */
  readonly schedules: readonly Schedule[];
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** The optimizer in use. */
  readonly optimizer: OptimizerSpec;
  /** Bytes there are: in all where the ranks share them (virtual devices, software drivers), else on each device. */
  readonly bytes: number;
  /** Whether the ranks share them. */
  readonly shared: boolean;
  /** Whether the devices are software drivers. */
  readonly software: boolean;
  /** Which kind of devices they are, as in `MemoryOptions`. */
  readonly kind?: DeviceKind;
  /** Lanes in their subgroups, as in `MemoryOptions`. */
  readonly subgroupSize?: number;
}

/** A model and what it needs. */
export interface ModelNeed {
  /** Name of the model. */
  readonly model: string;
  /** Predicted bytes, of all ranks where they share memory, else of the fullest rank; of the hungriest schedule. */
  readonly bytes: number;
}

const rules: Rules<LargestOptions> = {
  models: filled,
  schedules: filled,
  samples: positive,
  optimizer: optimizerRule,
  bytes: real({ least: 0 }),
  shared: flag,
  software: flag,
  kind: optional(oneOf(deviceKinds)),
  subgroupSize: optional(whole(0)),
};

/** The models in order, up to and including the first that fits; if the last of them does not fit, none does. */
export async function largestFitting(options: LargestOptions): Promise<{ fits: boolean; tried: readonly ModelNeed[] }> {
  const { models, schedules, samples, optimizer, bytes, shared, software, kind, subgroupSize } = options;
  expectFields("largestFitting", options, rules);
  const tried: ModelNeed[] = [];
  for (const model of models) {
    let most = 0;
    for (const schedule of schedules) {
      const peaks = await predictMemory(createModel(model), schedule, samples, {
        optimizer,
        software,
        kind,
        subgroupSize,
      });
      const totals = peaks.map(({ total }) => total);
      most = Math.max(most, shared ? totals.reduce((sum, total) => sum + total, 0) : Math.max(...totals));
      if (most > bytes) break;
    }
    tried.push({ model, bytes: most });
    if (most <= bytes) return { fits: true, tried };
  }
  return { fits: false, tried };
}
