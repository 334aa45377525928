/** When a measurement knows its gains well enough. */
import { fewest, medianInterval } from "./bootstrap.ts";
import { median } from "./statistics.ts";

/** Rounds after which it is looked at, each time a third more: who looks after every round stops where chance makes it look narrow. */
const first = 12, growth = 4 / 3;

/** Whether it is looked at after so many rounds. */
export function isLookedAt(rounds: number): boolean {
  let at = Math.max(first, fewest);
  while (at < rounds) at = Math.ceil(at * growth);
  return at === rounds;
}

/**
 * Whether the 95 % interval of the median of each list, see {@link medianInterval}, reaches no further than this share of the median
 * to either side, taken in the mean.
 */
export function isWithin(ratios: Iterable<readonly number[]>, share: number): boolean {
  for (const list of ratios) {
    const interval = medianInterval(list);
    if (!interval || (interval[1] - interval[0]) / 2 > share * median(list)) return false;
  }
  return true;
}
