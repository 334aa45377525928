/**
 * The ladder of the ablation: variants of a schedule's pair, each with one thing more than the one before. What they add is what
 * public code of the models, schedules and modes of the 2BP paper (arXiv 2405.18047), whose owner could not be established, does and a
 * bubble does not show.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { fusedAttention, storedAttention } from "../../ops/attention.ts";
import { perSampleName } from "../../ops/matmul_samples.ts";
import type { GpuInfo } from "../../gpu/gpu.ts";
import type { Observed } from "../../ops/choice.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import { generate } from "../../schedules/generators/generate.ts";
import { zoo } from "../../schedules/generators/zoo.ts";
import { twoStage } from "../../schedules/transforms/two_stage.ts";
import type { SchedulePair } from "../../schedules/transforms/pair.ts";
import type { MeasuredPair } from "../measured_pairs.ts";

/**
 * The rungs, from the bottom: the bubble alone; W of several micro-batches concatenated; weight gradients as a product for each sample
 * and a sum; attention that keeps its scores; and the steps without 2BP held up after each backward of the last rank.
 */
export const rungNames = ["bubble", "concatenation", "per-sample products", "stored scores", "stall"] as const;

/** A rung of the ablation, see {@link rungNames}. */
export type RungName = typeof rungNames[number];

/**
 * The pair of a rung: the schedule of that name, and with 2BP in the paper's order, on the lowest rung with one micro-batch to a W.
 *
 * @throws {UserError} For a schedule that is not made of whole backwards with one stage a rank, and what `generate()` refuses.
 */
export function rungPair(rung: RungName, schedule: string, devices: number): SchedulePair {
  const base = generate(schedule, { devices });
  if (!isPlain(schedule)) {
    const plain = zoo.filter(({ name }) => isPlain(name)).map(({ name }) => name);
    throw new UserError(
      `An ablation takes a schedule of whole backwards with one stage a rank, ${plain.join(", ")}; ${schedule} is none`,
    );
  }
  return { base, split: twoStage(base, { policy: "paper", ...(rung === "bubble" ? { width: 1 } : {}) }) };
}

function isPlain(name: string): boolean {
  const schedule = generate(name, { devices: 2 });
  return !sizesOf(schedule).split && schedule.placement.length === 2;
}

/** What decides which rungs there are, and what they hold. */
export interface LadderOptions {
  /** A schedule of the zoo, of whole backwards with one stage a rank. */
  readonly schedule: string;
  /** Number of ranks. */
  readonly devices: number;
  /** What the ranks' devices are. */
  readonly info: GpuInfo;
  /** What a step of the model has to compute, see `problemsOf`. */
  readonly problems: readonly Observed[];
  /** Milliseconds that the steps without 2BP stand still after each backward of the last rank. */
  readonly stallMs: number;
}

/** A rung, and what is measured for it. */
export interface Rung extends MeasuredPair {
  readonly name: RungName;
}

/**
 * The rungs that are different from the one below: without attention there are no scores to keep, for example. What a rung
 * adds stays for those above it.
 *
 * @throws {UserError} As {@link rungPair}.
 */
export function ladder({ schedule, devices, info, problems, stallMs }: LadderOptions): Rung[] {
  const serves = (operation: string, candidate: string) =>
    problems.some(({ operation: { name, candidates }, problem }) =>
      name === operation && candidates.find((each) => each.name === candidate)?.supports(info, problem)
    );
  const fused = fusedAttention(info);
  const isThere: Readonly<Record<RungName, boolean>> = {
    "bubble": true,
    "concatenation": sizesOf(rungPair("concatenation", schedule, devices).split).width > 1,
    "per-sample products": serves("matmul", perSampleName),
    "stored scores": serves("attention", fused),
    "stall": true,
  };
  return rungNames.filter((name) => isThere[name]).map((name) => {
    const at = rungNames.indexOf(name);
    const has = (other: RungName) => rungNames.indexOf(other) <= at;
    return {
      name,
      ...rungPair(name, schedule, devices), // new objects: each rung's waits have a history of their own
      candidates: [
        ...has("per-sample products") ? [perSampleName] : [],
        has("stored scores") ? storedAttention : fused,
      ],
      ...(has("stall") ? { stall: { rank: devices - 1, ms: stallMs } } : {}),
    };
  });
}
