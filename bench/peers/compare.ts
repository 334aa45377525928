/** Contenders measured side by side: the same work in turn, round by round, and the ratios of neighbours. */
import { kept, median, medianInterval, quartiles } from "twobp/measure";
import { collectGarbage } from "../../lib/gpu/garbage.ts";

/** What one contender took for one job. */
export interface PeerRow {
  /** What was done, `matmul 512x512x512` (rows, columns, inner dimension) or `training step`. */
  readonly job: string;
  /** Who did it. */
  readonly contender: string;
  /** Of the library. */
  readonly version: string;
  /** Times; absent where the contender failed. */
  readonly ms?: {
    readonly median: number;
    readonly quartiles: readonly [number, number];
    readonly min: number;
    /** Each run's, in the order taken, to five digits. */
    readonly each: readonly number[];
  };
  /** Times measured. */
  readonly runs: number;
  /** Of a product, at the median. */
  readonly gflops?: number;
  /** Largest difference from the first contender's result, in shares of its largest element. */
  readonly difference?: number;
  /** Why there are no times. */
  readonly error?: string;
}

/** How much longer a peer took than the first contender. */
export interface PeerRatio {
  /** What was done. */
  readonly job: string;
  /** Who took longer, or not. */
  readonly peer: string;
  /** Median over the rounds of (its time) / (the first one's). */
  readonly ratio: number;
  /** Lower and upper quartile. */
  readonly spread: readonly [number, number];
  /** 95 % confidence interval of the median over the rounds; absent for fewer than 6. */
  readonly interval?: readonly [number, number];
  /** Each round's, in the order taken, to five digits. */
  readonly ratios: readonly number[];
  /** Rounds. */
  readonly pairs: number;
}

/**
 * Runs each of `jobs` once in each of `rounds` rounds, one after the other, each round beginning with another: what
 * disturbs the machine disturbs all alike. Returns milliseconds, job by job, of which the n-th of each belong together.
 */
export async function interleave(
  jobs: readonly (() => Promise<unknown>)[],
  rounds: number,
  now: () => number = () => performance.now(),
): Promise<number[][]> {
  const times: number[][] = jobs.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < jobs.length; turn++) {
      const which = (round + turn) % jobs.length;
      collectGarbage();
      const start = now();
      await jobs[which]();
      times[which].push(now() - start);
    }
  }
  return times;
}

/** Order statistics of one contender's times. */
export function summary(times: readonly number[]): NonNullable<PeerRow["ms"]> {
  return {
    median: median(times),
    quartiles: quartiles(times),
    min: Math.min(...times),
    each: kept(times),
  };
}

/** The ratios of times that belong together. */
export function ratio(
  job: string,
  peer: string,
  own: readonly number[],
  theirs: readonly number[],
): PeerRatio {
  const ratios = theirs.map((time, round) => time / own[round]);
  const interval = medianInterval(ratios);
  return {
    job,
    peer,
    ratio: median(ratios),
    spread: quartiles(ratios),
    ...interval ? { interval } : {},
    ratios: kept(ratios),
    pairs: ratios.length,
  };
}

/** Largest difference between two results, in shares of the reference's largest element; infinite where they do not compare. */
export function difference(
  reference: ArrayLike<number>,
  found: ArrayLike<number> | undefined,
): number {
  if (found?.length !== reference.length) return Infinity;
  let most = 0, largest = 0;
  for (let i = 0; i < reference.length; i++) {
    const off = Math.abs(found[i] - reference[i]);
    if (!(off <= most)) most = Number.isNaN(off) ? Infinity : off;
    largest = Math.max(largest, Math.abs(reference[i]));
  }
  return most === 0 ? 0 : most / largest;
}
