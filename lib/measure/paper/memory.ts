/** Peaks of the models of the 2BP paper, and the memory there is for them. */
import type { DeviceSet } from "../../gpu/devices.ts";
import { createModel } from "../../models/registry.ts";
import { freeMemory } from "../free_memory.ts";
import { predictMemory } from "../memory.ts";
import type { PaperCase, Place } from "./cases.ts";
import type { PaperRun } from "./runs.ts";
import { type Variant, variant } from "../variant.ts";

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
        ...variant(schedule),
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

/** Whether ranks share memory, and how many bytes there are: `bytes` where that is given, Infinity where nobody knows. */
export function roomOf({ mode, devices: [{ gpu }] }: DeviceSet, bytes?: number): { shared: boolean; bytes: number } {
  const { software } = gpu.info;
  return { shared: software || mode === "virtual", bytes: bytes ?? (software ? freeMemory() : Infinity) };
}
