/** How long recorded kernels take: on the device's own clock where it has one, else on the host's. */
import type { Device } from "../gpu/device.ts";
import { createTimer } from "../gpu/timing.ts";
import { optional, positive, real, type Rules } from "../rules.ts";
import { kept, median, quartiles } from "./statistics.ts";

/** Times of one contestant, in milliseconds for one run. */
export interface Times {
  /** Of the rounds. */
  readonly median: number;
  /** A quarter and three quarters of the rounds took less. */
  readonly quartiles: readonly [number, number];
  /** Shortest of the rounds. */
  readonly min: number;
  /** Longest of the rounds. */
  readonly max: number;
  /** Each round's, in the order taken, to five digits. */
  readonly each: readonly number[];
  /** Rounds it took part in: fewer than the others where it was hopeless. */
  readonly rounds: number;
}

/** How patiently to time. */
export interface Patience {
  /** Rounds, in each of which every contestant has a turn; 7 by default. */
  readonly rounds?: number;
  /** Least length of a turn in milliseconds, by repeating; 2 by default. */
  readonly turnMs?: number;
}

/** What takes patience asks for these. */
export const patienceRules: Rules<Patience> = {
  rounds: optional(positive),
  turnMs: optional(real({ least: "above 0" })),
};

/**
 * A contestant whose shortest turn is this many times that of the best is given up after the first round; after the third,
 * half as many. The shortest, since a busy machine only ever adds time.
 */
const hopeless = 4;

/**
 * Times contestants against each other: in turns, so that whatever slows the machine down slows them all, each turn long
 * enough for the clock, and the middle of the rounds. What they record must be kernels only. Each has run before. The
 * `favourite`, an index, is never given up.
 */
export async function race(
  device: Device,
  contestants: readonly (() => void)[],
  { rounds = 7, turnMs = 2 }: Patience = {},
  favourite?: number,
): Promise<Times[]> {
  const timer = createTimer(device);
  const times: number[][] = contestants.map(() => []);
  const repeats = contestants.map(() => 1);
  const turns = async (which: readonly number[]) => {
    const elapsed: number[] = [];
    for (const [turn, index] of which.entries()) {
      const start = performance.now();
      if (timer) device.beginPass(timer.slot(turn));
      for (let i = 0; i < repeats[index]; i++) contestants[index]();
      if (timer) device.submit();
      else await device.idle();
      elapsed.push(performance.now() - start);
    }
    const intervals = await timer?.read(which.length);
    device.check();
    return which.map((index, turn) => {
      const ms = intervals ? intervals[turn].end - intervals[turn].start : elapsed[turn];
      return ms / repeats[index];
    });
  };
  try {
    let running = contestants.map((_, index) => index);
    // How often to repeat: a first try says roughly, a longer one says how often.
    for (const least of [turnMs / 8, turnMs]) {
      const tried = await turns(running);
      running.forEach((index, turn) => {
        repeats[index] = Math.min(1000, Math.max(1, Math.ceil(least / Math.max(tried[turn], 1e-5))));
      });
    }
    for (let round = 0; round < rounds; round++) {
      const taken = await turns(running);
      running.forEach((index, turn) => times[index].push(taken[turn]));
      const shortest = (index: number) => Math.min(...times[index]);
      const best = Math.min(...running.map(shortest));
      const limit = round === 0 ? hopeless : round === 2 ? hopeless / 2 : Infinity;
      running = running.filter((index) => index === favourite || shortest(index) <= limit * best);
    }
  } finally {
    timer?.close();
  }
  return times.map((each) => ({
    median: median(each),
    quartiles: quartiles(each),
    min: Math.min(...each),
    max: Math.max(...each),
    each: kept(each),
    rounds: each.length,
  }));
}
