/** What 2BP is measured on: a schedule without it, and with it. */
import { sizesOf } from "../check/sizes.ts";
import { generate, type GenerateOptions } from "../generators/generate.ts";
import { zoo } from "../generators/zoo.ts";
import type { Schedule } from "../schedule.ts";
import { twoStage, type TwoStageOptions } from "./two_stage.ts";
import { wholeBackward } from "./whole.ts";

/** A schedule without 2BP and with it, both with the same placement and micro-batches. */
export interface SchedulePair {
  /** Made of F and B. */
  readonly base: Schedule;
  /** With I and W: what `twoStage` made of `base`, or a schedule that is split by itself. */
  readonly split: Schedule;
}

/** The four schedules of the 2BP paper, in its order. */
export const paperSchedules: readonly string[] = zoo.filter(({ twoStage }) => twoStage).map(({ name }) => name);

/**
 * The pair of a schedule. One of whole backward passes is split by `twoStage(schedule, options)`. One that is split by itself stays as
 * it is, and its base is the same order with every I and its W as one B, see `wholeBackward()`; `options` do not apply then.
 *
 * @throws {UserError} What `validate()` says of the schedule, and `twoStage()` of the options.
 */
export function pairOf(schedule: Schedule, options: TwoStageOptions = {}): SchedulePair {
  if (sizesOf(schedule).split) return { base: wholeBackward(schedule), split: schedule };
  return { base: schedule, split: twoStage(schedule, options) };
}

/**
 * The pair of the schedule of that name, with 2BP as its paper has it: GPipe runs its weight gradients at the end, all
 * micro-batches in one W, the others fill idle slots. `how` goes before that, with costs for example.
 *
 * ```ts
 * import { schedulePair, simulate } from "twobp";
 *
 * const { base, split } = schedulePair("1f1b-1", { devices: 4 });
 * console.log(simulate(base).makespan / simulate(split).makespan); // 1.4
 * ```
 *
 * @throws {UserError} As `generate()`.
 */
export function schedulePair(name: string, options: GenerateOptions, how: TwoStageOptions = {}): SchedulePair {
  const schedule = generate(name, options);
  return pairOf(schedule, { ...usualTwoStage(name, schedule), ...how });
}

/** How 2BP is applied to the schedule of that name where nobody says how. */
export function usualTwoStage(name: string, schedule: Schedule): TwoStageOptions {
  const joined = zoo.find((entry) => entry.name === name)?.twoStage?.joined;
  return joined ? { policy: "end", width: sizesOf(schedule).microbatches } : {};
}
