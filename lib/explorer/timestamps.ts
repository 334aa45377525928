/** How fine a browser's timestamps are. */
import { time } from "./why.ts";

/** What all times are multiples of, milliseconds, told in whole nanoseconds: `before` is the same of earlier times, 0 at first. */
export function grainOf(timesMs: readonly number[], before = 0): number {
  return timesMs.reduce((grain, ms) => commonDivisor(grain, Math.round(ms * 1e6)), Math.round(before * 1e6)) / 1e6;
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}

/** From here on, in milliseconds, short actions are told apart badly. */
const coarse = 0.01;

/** What there is to say of timestamps in such steps, if anything. */
export function grainNote(grainMs: number): string[] {
  if (grainMs < coarse) return [];
  return [
    `Timestamps of this browser come in steps of ${
      time(grainMs)
    } ms, which blurs short actions: more samples make them longer, ` +
    "and Chrome's come in nanoseconds with chrome://flags/#enable-webgpu-developer-features.",
  ];
}
