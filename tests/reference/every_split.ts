/** The best that can be made of a schedule of F and B by splitting backwards, found by trying all ways. */
import type { StageCost } from "../../lib/schedules/price/costs.ts";

type Kind = "F" | "I" | "W" | "B";

/** Every list that a rank of one stage may run in place of its F and B: each B whole, or an I there and a W anywhere later. */
export function splitsOf(list: readonly ("F" | "B")[]): Kind[][] {
  const all: Kind[][] = [];
  const extend = (made: Kind[], at: number, pending: number) => {
    if (at === list.length && pending === 0) return void all.push(made);
    if (pending > 0) extend([...made, "W"], at, pending - 1);
    if (at === list.length) return;
    if (list[at] === "F") return extend([...made, "F"], at + 1, pending);
    extend([...made, "B"], at + 1, pending);
    extend([...made, "I"], at + 1, pending + 1);
  };
  extend([], 0, 0);
  return all;
}

/**
 * The least makespan over all of them, one stage a rank and the k-th F, and backward, of each rank that of the same micro-batch.
 *
 * @param comm Of every message.
 */
export function leastBySplitting(
  lists: readonly (readonly ("F" | "B")[])[],
  costs: readonly StageCost[],
  comm: number,
): number {
  const choices = lists.map(splitsOf);
  const timeOf = ({ f, i, w, b }: StageCost, kind: Kind) => ({ F: f, I: i, W: w as number, B: b! })[kind];
  let least = Infinity;
  const time = (chosen: readonly Kind[][]): number => {
    const ranks = chosen.map(() => ({ at: 0, free: 0, forwards: [] as number[], gradients: [] as number[] }));
    for (let moved = true; moved;) {
      moved = false;
      for (const [r, own] of ranks.entries()) {
        while (own.at < chosen[r].length) {
          const kind = chosen[r][own.at];
          const made = kind === "F" ? ranks[r - 1]?.forwards : kind === "W" ? undefined : ranks[r + 1]?.gradients;
          const done = kind === "F" ? own.forwards : own.gradients;
          const input = made && made[done.length];
          if (made && input === undefined) break;
          own.free = Math.max(own.free, input === undefined ? 0 : input + comm) + timeOf(costs[r], kind);
          if (own.free >= least) return Infinity;
          if (kind !== "W") done.push(own.free);
          own.at++;
          moved = true;
        }
      }
    }
    return Math.max(...ranks.map(({ free }) => free));
  };
  const choose = (chosen: Kind[][]) => {
    if (chosen.length === choices.length) least = Math.min(least, time(chosen));
    else for (const list of choices[chosen.length]) choose([...chosen, list]);
  };
  choose([]);
  return least;
}
