/** Where a gain of 2BP comes from: the variants of a ladder, measured in turn, and each one's factor. */
import type { DeviceSet, Mode } from "../../gpu/devices.ts";
import { callback, expectFields, having, listOf, optional, positive, type Rules, string } from "../../rules.ts";
import type { Pipeline, Precision } from "../../runtime/pipeline.ts";
import type { Stall } from "../../runtime/run.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import { amount } from "../../schedules/price/amounts.ts";
import { simulate } from "../../schedules/price/simulate.ts";
import { ladder, type Rung, type RungName, rungNames, rungPair } from "./ladder.ts";
import {
  type AblationPrediction,
  type LadderCosts,
  predictAblation,
  publishedDevices,
  publishedGain,
} from "./prediction.ts";
import { problemsOf } from "../calibrate.ts";
import { type CostCollector, createCostCollector, updatesAfter } from "../costs.ts";
import { errorBar } from "../error_bar.ts";
import { type MeasurementOptions, startMeasurement } from "../measurement.ts";
import type { Overheads } from "../overheads.ts";
import { median, quantile } from "../statistics.ts";

/** What to take apart. */
export interface AblationOptions extends Pick<MeasurementOptions, "source" | "samples" | "transfer" | "onStep"> {
  /** A schedule of whole backwards with one stage a rank: "naive", "gpipe", "1f1b-1", "1f1b-2" or "1f1b". */
  readonly schedule: string;
  /** Rounds, in each of which every rung has a step without 2BP and one with; after one that is not counted. */
  readonly repeats: number;
  /** How long the steps without 2BP stand still after each backward of the last rank, on the highest rung. Milliseconds. */
  readonly stallMs: number;
  /** Numbers of ranks to predict for, besides the one measured; 4, 8 and 16 by default. */
  readonly predict?: readonly number[];
}

const rules: Rules<AblationOptions> = {
  schedule: string,
  source: having("next"),
  transfer: optional(callback),
  onStep: optional(callback),
  repeats: positive,
  stallMs: amount,
  predict: optional(listOf(positive)),
  samples: positive,
};

/** Median and quartiles. */
export interface Spread {
  /** The middle value. */
  readonly median: number;
  /** Lower and upper quartile. */
  readonly quartiles: readonly [number, number];
}

/** A rung as it was measured. */
export interface AblationRung {
  /** Which. */
  readonly name: RungName;
  /** Milliseconds of a step without 2BP, and of one with: wall clock on real devices, composed on virtual ones. */
  readonly stepMs: readonly [Spread, Spread];
  /** What a step without 2BP takes, and one with, over the same of the rung below in the same round: above 1 the rung is slower. */
  readonly slower: readonly [Spread, Spread];
  /** Median over the rounds of the one over the other, and quartiles. */
  readonly gain: Spread;
  /** The gain that the simulator makes of this rung's measured times of F, I, W and B; NaN without device times. */
  readonly predicted: number;
  /** How far that may be off, as in `Gain`. */
  readonly predictedWithin?: number;
  /** This gain over that of the rung below, and quartiles over the rounds of the same ratio; on the lowest rung the gain itself. */
  readonly factor: Spread;
  /** The same of what is predicted. */
  readonly predictedFactor: number;
}

/** An ablation. */
export interface AblationReport {
  /** Version of this form. */
  readonly schema: 1;
  /** Real or virtual devices. */
  readonly mode: Mode;
  /** Number of ranks. */
  readonly devices: number;
  /** What they are. */
  readonly adapter: string;
  /** The model's name, number of parameters and sizes. */
  readonly model: Readonly<Record<string, string | number>>;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** What tensors held. */
  readonly precision: Precision;
  /** The schedule taken apart. */
  readonly schedule: string;
  /** Micro-batches in a step. */
  readonly microbatches: number;
  /** Counted rounds. */
  readonly repeats: number;
  /** What held the steps without 2BP up on the highest rung, and its time in shares of a backward of that rank; NaN without device times. */
  readonly stall: Stall & { readonly share: number };
  /** The rungs, from the bottom: each has what those below it have. */
  readonly rungs: readonly AblationRung[];
  /** Rungs that would be the same as the one below. */
  readonly absent: readonly RungName[];
  /** The gain that the paper's abstract reports, and on how many ranks. */
  readonly published: { readonly gain: number; readonly devices: number };
  /** The gain of the lowest rung where F, I and W take equal times and messages none: what the bubble alone explains. Simulated. */
  readonly equalCosts: number;
  /** What the highest rung, which is the product of all factors, leaves of the published gain: a factor. */
  readonly remains: number;
  /** What predictions are made from; absent without device times. Give it to `predictAblation` for what is asked of this machine elsewhere. */
  readonly costs?: LadderCosts;
  /** For the number of ranks that was measured, and for others; none without device times. */
  readonly predictions: readonly AblationPrediction[];
  /** As in a throughput report. */
  readonly unexplained: number;
  /** As in a throughput report. */
  readonly overheads?: Overheads;
}

/** Steps that {@link measureAblation} takes at most. */
export function countAblationSteps({ repeats }: Pick<AblationOptions, "repeats">): number {
  return 2 * rungNames.length * (repeats + 1);
}

/**
 * Measures where the gain of 2BP on one schedule comes from. Variants of a pair of schedules, each with one thing more than
 * the one before, take their steps in turn, round by round, so that a machine that drifts drifts for all of them; the factor of a
 * thing is the gain with it over the gain without. See `rungNames` for the things.
 *
 * Gains are quotients: what makes both steps of a pair slower can raise one. The report has the step times too.
 *
 * @param pipeline One with a stage on each rank, which the caller closes.
 * @throws {UserError} On an option out of its range, a schedule that is not made of whole backwards with one stage a rank, and what
 * `measureThroughput()` refuses; nothing has run then.
 */
export async function measureAblation(
  set: DeviceSet,
  pipeline: Pipeline,
  options: AblationOptions,
): Promise<AblationReport> {
  expectFields("measureAblation", options, rules);
  const { schedule, repeats, stallMs, predict = [4, 8, 16], ...others } = options;
  const devices = set.devices.length;
  const { info } = set.devices[0].gpu;
  const { base, split } = rungPair("bubble", schedule, devices); // refused before anything runs
  const { model, precision, parts } = pipeline;
  const problems = await problemsOf(model, others.samples, set.devices[0].gpu, { precision });
  const rungs = ladder({ schedule, devices, info, problems, stallMs });
  const collectors = rungs.map(() => createCostCollector(parts.length, devices, updatesAfter(pipeline, devices)));
  const steps = rungs.map((): [number, number][] => []);
  const measurement = startMeasurement(set, pipeline, { ...others, pairs: rungs });
  let hasTimes = true;
  try {
    await measurement.open(0);
    for (let round = 0; round < repeats; round++) {
      for (const { pair, steps: both } of await measurement.round()) {
        steps[pair].push([both[0].ms, both[1].ms]);
        for (const { schedule, intervals } of both) {
          if (intervals) collectors[pair].add(schedule, intervals);
          else hasTimes = false;
        }
      }
    }
    const { mode, adapter, model, precision, unexplained, overheads } = measurement.report();
    const costs = hasTimes ? costsOf(rungs, collectors, overheads) : undefined;
    const counts = [...new Set([devices, ...predict])];
    const predictions = costs ? counts.map((devices) => predictAblation(costs, { schedule, devices, stallMs })) : [];
    const measured = rungsOf(rungs, steps, predictions[0]).map((rung) => {
      const predictedWithin = errorBar(rung.predicted, "gain", { mode, devices, adapter, precision });
      return { ...rung, ...(predictedWithin === undefined ? {} : { predictedWithin }) };
    });
    const backward = costs?.rungs[rungs.length - 2].costs.stages[devices - 1].b ?? NaN; // of the rung below
    return {
      ...{ schema: 1, mode, devices, adapter, model, samples: others.samples, precision, schedule },
      microbatches: sizesOf(rungs[0].base).microbatches,
      repeats,
      stall: { rank: devices - 1, ms: stallMs, share: stallMs / backward },
      rungs: measured,
      absent: rungNames.filter((name) => !rungs.some((each) => each.name === name)),
      published: { gain: publishedGain, devices: publishedDevices },
      equalCosts: simulate(base).makespan / simulate(split).makespan,
      remains: publishedGain / measured[measured.length - 1].gain.median,
      ...(costs ? { costs } : {}),
      predictions,
      unexplained,
      ...(overheads ? { overheads } : {}),
    };
  } finally {
    measurement.close();
  }
}

function costsOf(rungs: readonly Rung[], collectors: readonly CostCollector[], overheads?: Overheads): LadderCosts {
  return {
    rungs: rungs.map(({ name }, at) => ({ name, costs: collectors[at].costs() })),
    hostMs: overheads?.hostMsPerAction ?? 0,
    messageMs: Math.max(0, ...overheads?.messageMs ?? []),
  };
}

/** The rungs out of the step times of each round, [without 2BP, with]. */
function rungsOf(
  rungs: readonly Rung[],
  steps: readonly (readonly [number, number])[][],
  prediction?: AblationPrediction,
): AblationRung[] {
  const ratios = steps.map((pairs) => pairs.map(([without, with_]) => without / with_));
  const gains = ratios.map(spreadOf);
  return rungs.map(({ name }, at) => {
    const gain = gains[at];
    const below = Math.max(0, at - 1);
    const changes = at > 0 ? spreadOf(ratios[at].map((ratio, round) => ratio / ratios[below][round])) : gain;
    const both = (of: (pair: readonly [number, number], round: number, which: 0 | 1) => number): [Spread, Spread] => [
      spreadOf(steps[at].map((pair, round) => of(pair, round, 0))),
      spreadOf(steps[at].map((pair, round) => of(pair, round, 1))),
    ];
    return {
      name,
      stepMs: both((pair, _, which) => pair[which]),
      slower: both((pair, round, which) => pair[which] / steps[below][round][which]),
      gain,
      predicted: prediction?.rungs[at].gain ?? NaN,
      factor: { median: at > 0 ? gain.median / gains[at - 1].median : gain.median, quartiles: changes.quartiles },
      predictedFactor: prediction?.rungs[at].factor ?? NaN,
    };
  });
}

function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), quartiles: [quantile(values, 0.25), quantile(values, 0.75)] };
}
