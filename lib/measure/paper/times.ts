/** Step times of a model of the 2BP paper: an epoch of each schedule, as the paper measures, and interleaved pairs, as this project does. */
import type { DeviceSet } from "../../gpu/devices.ts";
import type { Pipeline } from "../../runtime/pipeline.ts";
import type { BatchSource } from "../../train/data.ts";
import { type Epoch, measureEpochs } from "./epoch.ts";
import { startMeasurement } from "../measurement.ts";
import { type PaperCase, stepWork, workOf } from "./cases.ts";
import type { ThroughputReport } from "../throughput_report.ts";

/** Pairs of steps of each schedule that are run even if there is no time for them. */
export const fewestPairs = 5;
/** Pairs that are enough, where nobody says how many. */
const mostPairs = 51;

/** How long to measure. */
export interface TimesOptions {
  /** Where batches come from. */
  readonly source: BatchSource;
  /** Milliseconds there are. */
  readonly ms: number;
  /** Steps in an epoch; 0 for none. */
  readonly steps: number;
  /** Pairs of steps of each schedule; by default as many as there is time for. */
  readonly repeats?: number;
  /** For how many more rounds to leave time: each as long as one of pairs. */
  readonly after: number;
  /** Told what begins. */
  readonly onPhase?: (phase: string) => void;
  /** Called after each step. */
  readonly onStep?: () => void;
}

/** What {@link timeCases} gives. */
export interface Times {
  /** Interleaved pairs: a report for each number of samples in a micro-batch. */
  readonly throughput: readonly ThroughputReport[];
  /** An epoch of each schedule, if there were to be any. */
  readonly epochs?: readonly Epoch[];
  /** Floating-point operations a second, on one device, while the pairs were run. */
  readonly rate: number;
}

/**
 * Times each case without 2BP and with the first of its policies, on a pipeline with one stage a rank. First an epoch of each,
 * schedule after schedule; then pairs, round by round over all of them, as long as there is time.
 */
export async function timeCases(
  set: DeviceSet,
  pipeline: Pipeline,
  cases: readonly PaperCase[],
  { source, ms, steps, repeats, after, onPhase, onStep }: TimesOptions,
): Promise<Times> {
  const end = performance.now() + ms;
  const groups = [...new Set(cases.map(({ samples }) => samples))].map((samples) => {
    const pairs = cases.filter((each) => each.samples === samples).map(({ base, splits: [split] }) => ({
      base,
      split,
    }));
    return { samples, pairs, measurement: startMeasurement(set, pipeline, { pairs, source, samples, onStep }) };
  });
  onPhase?.("first steps");
  for (const { measurement } of groups) await measurement.open(0);
  const epochs: Epoch[] = [];
  if (steps > 0) {
    onPhase?.("an epoch of each schedule");
    for (const { measurement, ...group } of groups) {
      epochs.push(...await measureEpochs(measurement, { ...group, steps, mode: set.mode }));
    }
  }
  onPhase?.("interleaved pairs");
  const started = performance.now();
  let rounds = 0, longest = 0;
  for (const most = repeats ?? mostPairs, least = repeats ?? fewestPairs; rounds < most; rounds++) {
    const start = performance.now();
    if (rounds >= least && start + longest * (1 + after) > end) break;
    for (const { measurement } of groups) await measurement.round();
    longest = Math.max(longest, performance.now() - start);
  }
  const work = groups.reduce((sum, { samples, pairs }) => {
    const each = workOf(pipeline.model.name, samples);
    return pairs.reduce(
      (sum, { base, split }) => sum + stepWork(each, base, set.mode) + stepWork(each, split, set.mode),
      sum,
    );
  }, 0);
  return {
    throughput: groups.map(({ measurement }) => measurement.report()),
    ...(steps > 0 ? { epochs } : {}),
    rate: rounds * work / (performance.now() - started) * 1000,
  };
}
