/** What a measurement compares: pairs of schedules, each without 2BP and with it. */
import { UserError } from "../errors.ts";
import type { Stall } from "../runtime/run.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { SchedulePair } from "../schedules/transforms/pair.ts";

/** A schedule without 2BP and with it, and what its steps are run under. */
export interface MeasuredPair extends SchedulePair {
  /** Candidates of operations that its steps take wherever these can serve, see `withCandidates`. */
  readonly candidates?: readonly string[];
  /**
   * What holds the steps without 2BP up. Virtual devices do not stand still: their step times are composed with it, since during a
   * pause the other ranks would go on with the device that they share.
   */
  readonly stall?: Stall;
}

/**
 * Refuses pairs that are not one schedule without 2BP and with it, for so many ranks, and stages where a pipeline is given.
 *
 * @throws {UserError} Names the schedule and what it differs in.
 */
export function checkPairs(pairs: readonly SchedulePair[], devices: number, stages?: number): void {
  for (const pair of pairs) {
    const [base, split] = [pair.base, pair.split].map((schedule) => {
      const sizes = sizesOf(schedule);
      if (sizes.devices === devices && sizes.stages === (stages ?? sizes.stages)) return sizes;
      throw new UserError(
        `Schedule ${schedule.name} is for ${sizes.stages} stages on ${sizes.devices} ranks, ` +
          (stages === undefined ? `and there are ${devices}` : `the pipeline has ${stages} on ${devices}`),
      );
    });
    if (base.microbatches !== split.microbatches) {
      throw new UserError(
        `The schedules of a pair must do the same work; ${pair.base.name} has ${base.microbatches} micro-batches, ` +
          `${pair.split.name} with 2BP ${split.microbatches}`,
      );
    }
    if (String(pair.base.placement) !== String(pair.split.placement)) {
      throw new UserError(
        `The schedules of a pair must have their stages on the same ranks; ${pair.base.name} has them on ` +
          `${pair.base.placement.join()}, ${pair.split.name} with 2BP on ${pair.split.placement.join()}`,
      );
    }
  }
}
