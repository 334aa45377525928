/** Sizes that are asked for, and those that a schedule claims. */
import { UserError } from "../../errors.ts";
import { described } from "../../rules.ts";
import { isAction, type Schedule } from "../schedule.ts";

/** The most pairs of a stage and a micro-batch, or with two stages a rank half of them: their actions take some 1 GB. */
const mostCells = 2 ** 22;

/**
 * Checks sizes that are asked for.
 *
 * @param who What needs them, as the first word of the message.
 * @throws {UserError} For anything but whole numbers of 1 or more.
 */
export function checkWhole(who: string, sizes: Readonly<Record<string, number>>): void {
  for (const [what, value] of Object.entries(sizes)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new UserError(`${who} needs a whole number of ${what}, 1 or more; got ${value}`);
    }
  }
}

/**
 * Checks that a schedule of so many stages and micro-batches can be made.
 *
 * @throws {UserError} Where its actions would not fit into memory.
 */
export function checkCells(who: string, stages: number, microbatches: number): void {
  if (stages * microbatches <= mostCells) return;
  throw new UserError(
    `${who} would have ${stages} stages x ${microbatches} micro-batches; at most ${mostCells} of such pairs are dealt with`,
  );
}

/**
 * Refuses what is no schedule, such as the name of one.
 *
 * @throws {UserError} Unless there are actions and a placement to look at.
 */
export function expectSchedule(schedule: Schedule): void {
  if (typeof schedule === "object" && schedule !== null && "actions" in schedule && "placement" in schedule) return;
  throw new UserError(`A schedule must be what generate() or fromCsv() returns, not ${described(schedule)}`);
}

/** How large a schedule is: what follows from its lists. */
export interface Sizes {
  /** Number of ranks, N. */
  readonly devices: number;
  /** Number of slices of the model; a multiple of `devices` for the schedules with several stages a rank. */
  readonly stages: number;
  /** Number of micro-batches in a step, M. */
  readonly microbatches: number;
  /** Most micro-batches in one action, which only a W may have several of. */
  readonly width: number;
  /** Whether any backward pass is split into I and W. */
  readonly split: boolean;
}

/**
 * The sizes of a schedule, before tables of these sizes are made: a file may name any stage and micro-batch.
 *
 * ```ts
 * import { generate, twoStage } from "twobp";
 * import { sizesOf } from "twobp/schedules";
 *
 * console.log(sizesOf(twoStage(generate("gpipe", { devices: 4 }), { policy: "end", width: 4 })));
 * // { devices: 4, stages: 4, microbatches: 4, width: 4, split: true }
 * ```
 *
 * @throws {UserError} For what is no schedule, and for lists and a placement that contradict each other. Other faults are for
 * `validate()` to find.
 */
export function sizesOf(schedule: Schedule): Sizes {
  checkPlacement(schedule);
  const { placement: { length: stages }, actions } = schedule;
  let last = -1, width = 1, split = false, count = 0;
  for (const list of actions) {
    count += list.length;
    for (const action of list) {
      if (!isAction(action)) continue;
      const { kind, microbatches } = action;
      if (kind === "I" || kind === "W") split = true;
      if (microbatches.length > width) width = microbatches.length;
      for (const microbatch of microbatches) if (Number.isInteger(microbatch) && microbatch > last) last = microbatch;
    }
  }
  const sizes = { devices: actions.length, stages, microbatches: Math.max(last + 1, 1), width, split };
  if (isEnough(count, sizes) || last < 0) return sizes;
  throw new UserError(
    `The schedule has ${count} actions, too few for ${stages} stages x ${sizes.microbatches} micro-batches: ` +
      `each needs a forward, and in training a backward`,
  );
}

/** Whether so many actions can be a schedule of that size: no table may become as large as a file claims. */
export function isEnough(actions: number, { stages, microbatches }: Sizes): boolean {
  return actions >= stages * microbatches;
}

/**
 * Refuses what is no schedule, or has lists and a placement that contradict each other.
 *
 * @throws {UserError} Says what is wrong.
 */
export function checkPlacement(schedule: Schedule): void {
  expectSchedule(schedule);
  const { placement, actions } = schedule;
  // By index: an array that was made with a length may have holes, which every() passes over.
  if (!Array.isArray(actions) || actions.length === 0 || !Array.from(actions, Array.isArray).every(Boolean)) {
    throw new UserError("The actions of a schedule are one list for each rank, at least one; these are no such lists");
  }
  if (!Array.isArray(placement) || placement.length === 0) {
    throw new UserError("The placement of a schedule lists the rank of each stage, of at least one");
  }
  placement.forEach((rank, stage) => {
    if (!Number.isInteger(rank) || rank < 0 || rank >= actions.length) {
      throw new UserError(`Stage ${stage} is placed on rank ${rank}; the ranks are 0 to ${actions.length - 1}`);
    }
  });
}
