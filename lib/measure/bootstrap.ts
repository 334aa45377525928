/**
 * How far a median can be trusted: the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
 * chapter 13), with ends moved outwards for small samples as Hesterberg does (What Teachers Should Know About the
 * Bootstrap, The American Statistician 69, 2015, "expanded percentile interval"): a plain one of 7 values holds the median
 * of what they are a sample of 87 times in 100, this one never less than 93.
 */
import { generator } from "../random.ts";

/** Enough for an end of the interval to stand at its share of resamples to within 0.2 %. */
const resamples = 10_000;

/** Fewer values have no such interval: even from the least to the greatest misses the median more often than 1 in 20 times. */
export const fewest = 6;

/**
 * The 95 % confidence interval of the median of what `values` are a sample of: percentile bootstrap with 10,000 resamples,
 * expanded for small samples, from a fixed seed, so that the same values always give the same interval. Values that were
 * measured together, as the two steps of a pair, are to be given as one, their ratio. Undefined for fewer than 6 values,
 * which have no such interval, and where one is NaN.
 *
 * @example
 * ```ts
 * import { medianInterval } from "twobp/measure";
 *
 * console.log(medianInterval([1.12, 1.15, 1.09, 1.2, 1.14, 1.13, 1.18])); // [ 1.09, 1.2 ]
 * ```
 */
export function medianInterval(values: readonly number[]): readonly [number, number] | undefined {
  const count = values.length;
  if (count < fewest || values.some(Number.isNaN)) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const random = generator("bootstrap");
  const drawn = new Uint32Array(count);
  const medians = new Float64Array(resamples);
  for (let sample = 0; sample < resamples; sample++) {
    drawn.fill(0);
    for (let draw = 0; draw < count; draw++) drawn[random.integer(count)]++;
    medians[sample] = middleOf(sorted, drawn);
  }
  medians.sort();
  const beyond = Math.floor(shareBeyond(count) * resamples);
  return [medians[beyond], medians[resamples - 1 - beyond]];
}

/** The median of sorted values that are there so many times each, as many in all as there are values. */
function middleOf(sorted: readonly number[], times: Uint32Array): number {
  const [low, high] = [(sorted.length - 1) >> 1, sorted.length >> 1]; // the same for an odd number
  let at = 0, before = times[0]; // values up to and with this one
  while (before <= low) before += times[++at];
  const first = sorted[at];
  while (before <= high) before += times[++at];
  return (first + sorted[at]) / 2;
}

/** The share of resamples beyond each end: 2.5 % for many values, less for few. */
export function shareBeyond(count: number): number {
  return normalTail(Math.sqrt(count / (count - 1)) * studentQuantile(count - 1));
}

/** The 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5): to 0.3 % from 5 degrees of freedom on. */
function studentQuantile(freedom: number): number {
  const z = 1.959964;
  return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2) +
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * freedom ** 3);
}

/** The share of a standard normal above x, for positive x (Abramowitz and Stegun 26.2.17): to 1e-7. */
function normalTail(x: number): number {
  const t = 1 / (1 + 0.2316419 * x);
  const sum = [1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.31938153].reduce((sum, c) => (sum + c) * t, 0);
  return sum * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
}
