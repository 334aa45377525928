/** Other ways to run a step, to be priced with the costs of a profile. */
import { UserError } from "../../errors.ts";
import type { PolicyText, Schedule } from "../../schedules/schedule.ts";
import type { Costs } from "../../schedules/price/costs.ts";
import { generate } from "../../schedules/generators/generate.ts";
import { zoo } from "../../schedules/generators/zoo.ts";
import { peakMemory } from "../../schedules/price/peak_memory.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import { toCsv } from "../../schedules/csv/csv.ts";
import { policies } from "../../schedules/transforms/policy.ts";
import { twoStage } from "../../schedules/transforms/two_stage.ts";
import { wholeBackward } from "../../schedules/transforms/whole.ts";

/** A schedule that could run instead. */
export interface Candidate {
  /** It. */
  readonly schedule: Schedule;
  /** The most activations, of a micro-batch on a stage, that a rank holds. */
  readonly activations: number;
}

/** Policies that need nothing but costs, and leave every W one micro-batch wide. */
const named = policies.filter(({ kind, value }) => !value && kind !== "paper").map(({ kind }) => kind as PolicyText);

/** Of these the ones to try on other schedules: those that look at costs. */
const clever: readonly string[] = ["fill", "select"];

/** The most activations of a micro-batch on a stage that a rank holds at once, which is what papers compare. */
export function activationsOf(schedule: Schedule): number {
  return Math.max(...peakMemory(schedule, () => ({ activations: 1, released: 0, derivatives: 0 })));
}

/**
 * The schedules of the same ranks, stages, placement and micro-batches: the one that ran without 2BP and with each policy, and those of
 * the zoo, with 2BP too where they are of full backwards. None is there twice, and none is the one that ran.
 *
 * @param costsFor The costs of a schedule; undefined where a time is missing, and then so is the schedule.
 */
export function candidatesFor(
  ran: Schedule,
  costsFor: (schedule: Schedule) => Costs | undefined,
  cap: number,
): Candidate[] {
  const seen = new Set([toCsv(ran)]), found: Candidate[] = [];
  const add = (schedule: Schedule) => {
    const text = toCsv(schedule);
    if (seen.has(text) || !costsFor(schedule)) return;
    seen.add(text);
    const activations = activationsOf(schedule);
    if (activations <= cap) found.push({ schedule, activations });
  };
  const split = (base: Schedule, kinds: readonly PolicyText[]) => {
    for (const policy of kinds) {
      // Unit costs say whether there is a time for every I and W.
      const costs = costsFor(twoStage(base));
      if (costs) add(twoStage(base, { policy, costs }));
    }
  };
  const whole = wholeBackward(ran);
  add(whole);
  split(whole, named);
  for (const schedule of sameSizes(ran)) {
    add(schedule);
    if (!sizesOf(schedule).split) {
      split(
        schedule,
        named.filter((kind) => clever.includes(kind)),
      );
    }
  }
  return found;
}

/** Those of the zoo that have the placement and the micro-batches of a schedule. */
function sameSizes({ actions, placement, ...rest }: Schedule): Schedule[] {
  const devices = actions.length, { microbatches } = sizesOf({ actions, placement, ...rest });
  return zoo.filter(({ sameAs }) => !sameAs).flatMap(({ name, isChunked }) => {
    try {
      const chunks = isChunked ? placement.length / devices : undefined;
      const schedule = generate(name, { devices, microbatches, chunks });
      return `${schedule.placement}` === `${placement}` ? [schedule] : [];
    } catch (error) {
      if (error instanceof UserError) return []; // it is not defined for these sizes
      throw error;
    }
  });
}
