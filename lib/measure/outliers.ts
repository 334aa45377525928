/** Steps that something else on the machine held up, told from effects of the schedules. */
import { fewest } from "./bootstrap.ts";
import { median } from "./statistics.ts";

/** How many median absolute deviations above the median of its schedule's steps a step is long: 3.4 standard deviations of normal noise. */
const beyond = 5;

/**
 * The pairs of which one step alone was long: only the first, only the second. A step is long that is more than 5 median
 * absolute deviations above the median of its own schedule's steps. A pair whose both steps are long is none of these: the
 * machine was slow for both, and their ratio is as good as any. Of normal noise 0.8 % of 21 pairs are counted, by simulation.
 * Undefined for fewer than 6 pairs, whose deviations say too little.
 *
 * @param pairs Step times of interleaved steps, in any unit.
 */
export function countOutliers(
  pairs: readonly (readonly [number, number])[],
): readonly [number, number] | undefined {
  if (pairs.length < fewest) return undefined;
  const limits = [0, 1].map((at) => limitOf(pairs.map((pair) => pair[at])));
  const isLong = pairs.map(([first, second]) => [first > limits[0], second > limits[1]]);
  return [
    isLong.filter(([first, second]) => first && !second).length,
    isLong.filter(([first, second]) => second && !first).length,
  ];
}

/**
 * The time above which a step is long. Where more than half of the steps took the same, as on a coarse clock, the median
 * deviation is 0 and every longer step would be one: five times the mean deviation counts then, as Iglewicz and Hoaglin do
 * (How to Detect and Handle Outliers, 1993). Where all took the same, none is long.
 */
function limitOf(times: readonly number[]): number {
  const middle = median(times);
  const deviations = times.map((time) => Math.abs(time - middle));
  const mean = deviations.reduce((sum, deviation) => sum + deviation, 0) / deviations.length;
  return middle + beyond * (median(deviations) || mean);
}
