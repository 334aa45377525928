/** The gain of `fill` at less memory. */
import type { Action } from "../schedule.ts";
import type { Costs } from "../price/costs.ts";
import { fillFast, fillUnderCap, leastCaps } from "./fill.ts";
import type { Memory } from "../price/memory.ts";
import { peaksOf } from "../price/peak_memory.ts";
import { timesOf } from "../price/simulate.ts";
import type { Program } from "../program.ts";

/** Halvings of the interval in which a rank's least cap is looked for: to a thousandth of what there is to save. */
const halvings = 10;

/**
 * Puts weight gradients into idle slots as `fillIdle` does, under the least caps, rank by rank, that it finds not to make the step
 * longer than without any. An idle slot is not always worth filling later: the last rank of 1F1B is never idle before its last
 * input gradient, so `fill` leaves all its W to the end, though all but N - 1 of them could run at once.
 *
 * A heuristic, since more room is not always better for a greedy filling, and what one rank saves may cost another. First
 * one bisection for all ranks together, between what each holds with every W at once and what it holds under
 * `fillFast`; then one for each rank with the others as they are, twice over, since what one rank gives up others may have
 * room for. Orders that are not shorter with less memory are kept. Certain is that the result is never longer than
 * `fillFast`'s and never holds more on any rank; that no other order of the same length holds less is not.
 */
export function fillLean(program: Program, width: number, costs: Costs, memory: Memory): Action[][] {
  const filled = fillFast(program, width, costs);
  const goal = filled.makespan * (1 + 1e-9);
  let best = filled.actions;
  let caps = peaksOf(filled.program, memory);
  const least = leastCaps(program, memory).map((bytes, rank) => Math.min(bytes, caps[rank]));

  const accept = (bytes: number[]): boolean => {
    const found = fillUnderCap(program, width, costs, { bytes, memory }, filled.order);
    if (!found || timesOf(found.program, costs).makespan > goal) return false;
    best = found.actions;
    caps = found.peaks;
    return true;
  };
  /** Moves the caps of some ranks as far towards the least as the goal allows. */
  const tighten = (ranks: readonly number[]) => {
    const from = [...caps];
    let [low, high] = [0, 1]; // share of the way from the least; high is known to do
    for (let round = 0; round < halvings; round++) {
      const share = round === 0 ? 0 : (low + high) / 2;
      const bytes = [...caps];
      for (const rank of ranks) bytes[rank] = Math.min(caps[rank], least[rank] + share * (from[rank] - least[rank]));
      if (!accept(bytes)) {
        low = share;
        continue;
      }
      high = share;
      if (share === 0) return;
    }
  };
  const all = caps.map((_, rank) => rank);
  tighten(all);
  for (let pass = 0; pass < 2; pass++) for (const rank of all) tighten([rank]);
  return best;
}
