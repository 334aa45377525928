/** What 2BP gains over the schedule it was made from, measured and taken apart. */
import { expectValue, filled } from "../rules.ts";
import type { Stall } from "../runtime/run.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { withHostOverhead, withStall } from "../schedules/price/costs.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { type MeasuredCosts, simulatorCosts, type Transfer } from "./costs.ts";
import { medianInterval } from "./bootstrap.ts";
import { countOutliers } from "./outliers.ts";
import { kept, median, quartiles } from "./statistics.ts";

/** A measured gain, `gain = bubbleGain x batchingGain x rest`. */
export interface Gain {
  /** Name of the schedule without 2BP. */
  readonly schedule: string;
  /** Median over the pairs of (step time without 2BP) / (step time with). */
  readonly gain: number;
  /** Lower and upper quartile of the pairs' ratios. */
  readonly spread: readonly [number, number];
  /** 95 % confidence interval of the median, by {@link medianInterval} over the pairs; absent for fewer than 6. */
  readonly interval?: readonly [number, number];
  /** Each pair's ratio, in the order taken, to five digits; reports before this field have none. */
  readonly ratios?: readonly number[];
  /** Pairs of steps measured. */
  readonly pairs: number;
  /**
   * How many of the pairs had one long step: only the step without 2BP, only the one with. Long is more than 5 median absolute deviations
   * (where these are 0, mean ones) above the median of the schedule's steps. They count in all figures as any pair; absent
   * for fewer than 6 pairs.
   */
  readonly outliers?: readonly [number, number];
  /** What the simulator makes of the measured costs of F, I, W and B: bubbleGain x batchingGain. NaN without device times. */
  readonly predicted: number;
  /** How far `predicted` may be off, to either side, as {@link errorBar} says; absent where no kept errors are of such devices. */
  readonly predictedWithin?: number;
  /** From the schedule alone: the simulated gain if a W of k micro-batches cost as much as k single ones. */
  readonly bubbleGain: number;
  /** From concatenation: what it adds that a wide W costs what it was measured at; 1 where every W is a single one. */
  readonly batchingGain: number;
  /** What neither explains. */
  readonly rest: number;
}

/**
 * Takes the gain of one schedule apart.
 *
 * @param pairs Step times of interleaved steps, [without 2BP, with 2BP], in milliseconds; at least one.
 * @param stall What held the steps without 2BP up, where they were.
 * @throws {UserError} Without a pair.
 */
export function explainGain(
  base: Schedule,
  split: Schedule,
  pairs: readonly (readonly [number, number])[],
  measured?: MeasuredCosts,
  transfer?: Transfer,
  stall?: Stall,
): Gain {
  expectValue("explainGain: the pairs of step times", pairs, filled);
  const ratios = pairs.map(([without, with_]) => without / with_);
  const gain = median(ratios);
  const interval = medianInterval(ratios);
  const outliers = countOutliers(pairs);
  const makespan = (schedule: Schedule, batching: boolean, stall?: Stall) =>
    predictStep(schedule, measured, { batching, transfer, stall });
  const without = makespan(base, true, stall);
  const unbatched = makespan(split, false);
  const predicted = without / makespan(split, true);
  return {
    schedule: base.name,
    gain,
    spread: quartiles(ratios),
    ...(interval ? { interval } : {}),
    ratios: kept(ratios),
    pairs: pairs.length,
    ...(outliers ? { outliers } : {}),
    predicted,
    bubbleGain: without / unbatched,
    batchingGain: predicted / (without / unbatched),
    rest: gain / predicted,
  };
}

/** What else than the measured costs a step consists of. */
export interface StepParts {
  /** Whether a wide W costs what it was measured at; yes by default. */
  readonly batching?: boolean;
  /** What a message takes, in milliseconds; nothing by default. */
  readonly transfer?: Transfer;
  /** What the host takes for each action, in milliseconds; nothing by default. */
  readonly hostMs?: number;
  /** What holds the step up. */
  readonly stall?: Stall;
}

/** The step time that the simulator makes of measured costs, in milliseconds; NaN without them. */
export function predictStep(
  schedule: Schedule,
  measured: MeasuredCosts | undefined,
  { batching = true, transfer, hostMs = 0, stall }: StepParts = {},
): number {
  if (!measured) return NaN;
  const costs = withHostOverhead(simulatorCosts(measured, { batching, transfer }), hostMs);
  return simulate(schedule, stall ? withStall(costs, stall.rank, stall.ms) : costs).makespan;
}
