/**
 * The lists of a schedule as a short text, right or wrong: for links, and for edits that no file could hold, since CSV is read
 * and written of schedules that run. `0F0.0F1.0W0-1_1F0` is two ranks; the signs are those that links leave as they are.
 */
import { UserError } from "../errors.ts";
import { type Action, formatAction, type Kind } from "../schedules/schedule.ts";
import { quoted } from "../text.ts";

/** For each rank its actions. */
export type Lists = readonly (readonly Action[])[];

/** Writes lists. */
export function formatLists(lists: Lists): string {
  return lists.map((list) => list.map((action) => formatAction(action).replaceAll("+", "-")).join(".")).join("_");
}

/**
 * Reads lists.
 *
 * @throws {UserError} Quotes what is no action.
 */
export function parseLists(text: string): Lists {
  return text.split("_").map((row) =>
    row === "" ? [] : row.split(".").map((cell): Action => {
      const [, stage, kind, microbatches] = /^(\d{1,6})([FIWBR])(\d{1,6}(?:-\d{1,6})*)$/.exec(cell) ?? [];
      if (!kind) throw new UserError(`${quoted(cell)} is no action; one is written as 0F3, or 0W2-3`);
      return { stage: Number(stage), kind: kind as Kind, microbatches: microbatches.split("-").map(Number) };
    })
  );
}

/**
 * The rank of each stage, as lists have it.
 *
 * @throws {UserError} For a stage that is on two ranks, and one that is on none.
 */
export function placementOf(lists: Lists): number[] {
  const ranks = new Map<number, number>();
  lists.forEach((list, rank) => {
    for (const { stage } of list) {
      const other = ranks.get(stage) ?? rank;
      if (other !== rank) throw new UserError(`Stage ${stage} is on ranks ${other} and ${rank}; it belongs on one`);
      ranks.set(stage, rank);
    }
  });
  return Array.from({ length: ranks.size }, (_, stage) => {
    const rank = ranks.get(stage);
    if (rank === undefined) throw new UserError(`There are ${ranks.size} stages, and none of them is stage ${stage}`);
    return rank;
  });
}
