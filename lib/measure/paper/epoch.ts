/** Throughput as the 2BP paper measures it: samples of an epoch over its time, after one step that does not count. */
import type { Mode } from "../../gpu/devices.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import type { SchedulePair } from "../../schedules/transforms/pair.ts";
import type { Measurement } from "../measurement.ts";
import { type Variant, variant } from "../variant.ts";

/** An epoch of one schedule: so many steps in a row. One number, without a spread. */
export interface Epoch extends Variant {
  /** Steps in it. */
  readonly steps: number;
  /** Samples in it. */
  readonly samples: number;
  /**
   * Its time in milliseconds. On real devices by the clock on the wall, from the first step to the end of the last, batches and
   * host included; on virtual ones the sum of the composed step times.
   */
  readonly ms: number;
  /** Samples over time. */
  readonly samplesPerSecond: number;
  /** Steps of it in which gradients overflowed in mixed precision, so that nothing was updated; absent where there were none. */
  readonly skipped?: number;
}

/** How long an epoch is, and of what. */
export interface EpochOptions {
  /** What the measurement compares. */
  readonly pairs: readonly SchedulePair[];
  /** Samples in a micro-batch, as the measurement has them. */
  readonly samples: number;
  /** Steps in an epoch, after one that does not count. */
  readonly steps: number;
  /** What the measurement's devices are. */
  readonly mode: Mode;
}

/** Runs an epoch of each schedule of a measurement whose placements are open, one after the other: without 2BP, then with it. */
export async function measureEpochs(measurement: Measurement, options: EpochOptions): Promise<Epoch[]> {
  const { pairs, samples, steps, mode } = options;
  const epochs: Epoch[] = [];
  for (const [index, pair] of pairs.entries()) {
    for (const schedule of [pair.base, pair.split]) {
      const { microbatches, split: twoStage } = sizesOf(schedule);
      await measurement.step(index, twoStage);
      const start = performance.now();
      let composed = 0, skipped = 0;
      for (let step = 0; step < steps; step++) {
        const sample = await measurement.step(index, twoStage);
        composed += sample.ms;
        if (sample.skipped) skipped++;
      }
      const ms = mode === "virtual" ? composed : performance.now() - start;
      const count = steps * samples * microbatches;
      epochs.push({
        ...variant(schedule),
        steps,
        samples: count,
        ms,
        samplesPerSecond: count / ms * 1000,
        ...(skipped > 0 ? { skipped } : {}),
      });
    }
  }
  return epochs;
}
