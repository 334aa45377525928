/** Sizes that are asked for, and those that a schedule claims. */
import { UserError } from "../../errors.ts";
import { described } from "../../rules.ts";
import type { Schedule } from "../schedule.ts";

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

/**
 * Checks what a schedule says of itself against its lists, before tables of these sizes are made: a file may claim any number of
 * stages and micro-batches.
 *
 * @throws {UserError} Says which size is wrong and what would be right.
 */
export function checkSizes(schedule: Schedule): void {
  expectSchedule(schedule);
  const { devices, stages, microbatches, placement, actions, width } = schedule;
  for (const [what, value] of Object.entries({ devices, stages, "micro-batches": microbatches })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new UserError(`A schedule needs a whole number of ${what}, 1 or more; this one has ${value}`);
    }
  }
  if (!Number.isInteger(width) || width < 1) {
    throw new UserError(`The width of a schedule is a whole number of micro-batches, 1 or more; this one has ${width}`);
  }
  if (!Array.isArray(actions) || !actions.every((list) => Array.isArray(list))) {
    throw new UserError("The actions of a schedule are one list for each rank; these are no lists");
  }
  if (actions.length !== devices) {
    throw new UserError(
      `The schedule has ${actions.length} lists of actions for ${devices} devices; it needs one each`,
    );
  }
  if (!Array.isArray(placement)) throw new UserError("The placement of a schedule lists the rank of each stage");
  if (placement.length !== stages) {
    throw new UserError(`The placement has ${placement.length} entries for ${stages} stages; it needs one each`);
  }
  placement.forEach((rank, stage) => {
    if (!Number.isInteger(rank) || rank < 0 || rank >= devices) {
      throw new UserError(`Stage ${stage} is placed on device ${rank}; the devices are 0 to ${devices - 1}`);
    }
  });
  const count = actions.reduce((sum, list) => sum + list.length, 0);
  if (count < stages * microbatches) {
    throw new UserError(
      `The schedule has ${count} actions, too few for ${stages} stages x ${microbatches} micro-batches: ` +
        `each needs a forward and a backward`,
    );
  }
}
