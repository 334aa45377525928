/** Moves an action within its rank's list. */
import type { Lists } from "./lists.ts";

/** The lists with the action at `from` of a rank put where it is then at `to`; `to` is brought into the list. */
export function moveAction(lists: Lists, rank: number, from: number, to: number): Lists {
  return lists.map((list, at) => {
    if (at !== rank) return list;
    const rest = list.toSpliced(from, 1);
    return rest.toSpliced(Math.max(0, Math.min(to, rest.length)), 0, list[from]);
  });
}

/** When an action runs. */
interface Bar {
  readonly start: number;
  readonly end: number;
}

/**
 * Where in the list an action comes that is dropped at a time: before the first of the others whose middle is later.
 *
 * @param bars Of the rank, in the order of its list.
 * @param from The place of the action that is dragged, which does not count.
 */
export function dropAt(bars: readonly Bar[], from: number, time: number): number {
  const others = bars.filter((_, index) => index !== from);
  const later = others.findIndex(({ start, end }) => (start + end) / 2 > time);
  return later < 0 ? others.length : later;
}
