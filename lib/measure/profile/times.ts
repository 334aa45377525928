/** What many times of one thing come to. */
import { median, quartiles } from "../statistics.ts";
import type { ActionTimes } from "./profile.ts";

/** Median, quartiles and outliers of times in milliseconds; undefined of none. */
export function actionTimes(samples: readonly number[]): ActionTimes | undefined {
  if (samples.length === 0) return undefined;
  const [lower, upper] = quartiles(samples), far = 3 * (upper - lower);
  return {
    median: median(samples),
    quartiles: [lower, upper],
    samples,
    // Four say too little of how far times usually are apart.
    outliers: samples.length < 5 ? [] : samples.filter((time) => time < lower - far || time > upper + far),
  };
}
