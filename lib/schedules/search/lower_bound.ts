/**
 * Bounds of all orders. A mixed-integer program of the same waits, with a choice for each two parts of a rank, is no better: HiGHS
 * (1.15, one thread of WebAssembly) took 10 to 30 s for 4 x 4 with random costs, where search took less than one; at 4 x 8 with 1F1B's
 * memory it was 16 % above the optimum after 100 s, which here is proven in one.
 *
 * @module
 */

import { precedenceOf } from "./precedence.ts";
import type { Problem } from "./problem.ts";
import { tailsAfter } from "./remaining.ts";
import { narrowing, type Windows } from "./windows.ts";

/** A bound is looked for as closely as this share of it. */
const closely = 1e-4;

/** A time that no order of F, I, W and B can beat under the cap, a backward being whichever way is shorter. */
export function lowerBound(problem: Problem): number {
  return bounds(problem).bound;
}

/** The same, with a way to look for a higher one. */
export function bounds(problem: Problem) {
  const { microbatches, slack } = problem;
  const { all, bound, narrow, shave } = narrowing(precedenceOf(problem, tailsAfter(problem)), microbatches, slack);
  return {
    bound,
    /**
     * Raises the bound as far as a makespan that an order has: by claims that are refuted, each halving what is left; and then again by
     * so many claims about single actions. Yields the bound so far now and then, and the highest at the end.
     */
    *raise(best: number, claims: number): Generator<{ bound: number; isClaim: boolean }, void> {
      let low = bound, left = claims;
      for (const isShaved of claims > 0 ? [false, true] : [false]) {
        let high = best - slack;
        /** What a makespan that stands leaves of the windows holds for all shorter ones. */
        let windows = all;
        for (let makespan = high; low < high; makespan = (low + high) / 2) {
          const own: Windows = { heads: windows.heads.slice(), tails: windows.tails.slice() };
          let stands = narrow(own, makespan);
          if (stands && isShaved) {
            const steps = shave(own, makespan);
            const most = left / 3;
            for (let claimed = 0; claimed < most; claimed++, left--) {
              const { done, value } = steps.next();
              if (done) {
                stands = value;
                break;
              }
              yield { bound: low, isClaim: true };
            }
          }
          if (stands) [high, windows] = [makespan, own];
          else low = makespan;
          yield { bound: low, isClaim: false };
          if (low >= best - slack || isShaved && left < 1) return;
          if (high - low <= closely * best) break;
        }
      }
    },
  };
}
