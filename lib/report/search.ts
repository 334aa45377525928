/** What a search came to, in words. */
import { sizesOf } from "../schedules/check/sizes.ts";
import type { SearchResult } from "../schedules/search/search.ts";

/** Whether what was found is proven, and if not how far it may be from the fastest; `stopped` where somebody did not wait. */
export function searchVerdict({ schedule, makespan, lowerBound, proven }: SearchResult, stopped: boolean): string {
  const time = (value: number) => Number(value.toPrecision(6));
  if (proven) {
    const { devices, stages } = sizesOf(schedule),
      which = stages === devices ? "one stage a rank" : "these stages on these ranks";
    return `Proven optimal: no schedule of ${which} is faster than ${time(makespan)}`;
  }
  const gap = (100 * (makespan / lowerBound - 1)).toFixed(1);
  return `${stopped ? "Interrupted; not" : "Not"} proven optimal: no schedule is faster than ${time(lowerBound)}, ` +
    `and this one is ${gap} % above`;
}
