/** What to measure of the models of the 2BP paper. */
import type { DeviceSet } from "../../gpu/devices.ts";
import type { Model } from "../../models/model.ts";
import {
  callback,
  expectFields,
  filled,
  listOf,
  oneOf,
  optional,
  positive,
  real,
  type Rules,
  u32,
  whole,
} from "../../rules.ts";
import { budgetRule } from "../../runtime/pipeline.ts";
import type { PolicyText } from "../../schedules/schedule.ts";
import { paperSchedules } from "../../schedules/transforms/pair.ts";
import type { BatchSource } from "../../train/data.ts";

/** What can be measured of a model: step times, peaks, gains by number of ranks; and of a transformer where its gain comes from. */
export const paperParts = ["throughput", "memory", "scaling", "ablation"] as const;

/** One of them. */
export type PaperPart = (typeof paperParts)[number];

/** What to measure of a model, and how long. */
export interface PaperOptions {
  /** Number of ranks. */
  readonly devices: number;
  /** Opens so many devices, which are closed here. */
  readonly open: (devices: number) => Promise<DeviceSet>;
  /** Makes what a model is trained on. */
  readonly source: (model: Model) => BatchSource;
  /** Names of schedules of the paper. */
  readonly schedules: readonly string[];
  /** When W runs: the first is timed, of all of them there are peaks. */
  readonly policies: readonly PolicyText[];
  /** What to measure. */
  readonly parts: readonly PaperPart[];
  /** Numbers of ranks for scaling, ascending. */
  readonly ranks: readonly number[];
  /** Models to choose from, the largest first: the largest that fits is taken. One alone is taken as it is. */
  readonly sizes: readonly string[];
  /** Milliseconds there are. At least {@link fewestPairs} pairs of each schedule are run all the same. */
  readonly ms: number;
  /** Bytes there are, in all where ranks share them, else on a device; by default what the machine has free for software drivers, and for GPUs what they give. */
  readonly bytes?: number;
  /** What the last rank is held up for after each backward without 2BP on the highest rung of the ablation, in shares of one. */
  readonly stall: number;
  /** Steps in an epoch. */
  readonly steps: number;
  /** Pairs of steps of each schedule; by default as many as there is time for. */
  readonly repeats?: number;
  /** Of the parameters. */
  readonly seed: number;
  /** Told what begins. */
  readonly onPhase?: (phase: string) => void;
  /** Called after each step. */
  readonly onStep?: () => void;
}

const rules: Rules<PaperOptions> = {
  devices: positive,
  open: callback,
  source: callback,
  schedules: listOf(oneOf(paperSchedules)),
  policies: filled,
  parts: listOf(oneOf(paperParts)),
  ranks: listOf(whole(2)),
  sizes: filled,
  ms: real({ least: "above 0" }),
  bytes: optional(budgetRule),
  stall: real({ least: 0 }),
  steps: positive,
  repeats: optional(positive),
  seed: u32,
  onPhase: optional(callback),
  onStep: optional(callback),
};

/** Refuses options that are none, in the name of `owner`. */
export function expectPaperOptions(owner: string, options: PaperOptions): void {
  expectFields(owner, options, rules);
}
