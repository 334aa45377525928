import { type Problem } from "./problem.ts";
import { precedenceOf } from "./precedence.ts";
import { tailsAfter } from "./remaining.ts";
import { narrowing } from "./windows.ts";

/** A time that no order of F, I, W and B can beat under the cap, a backward being whichever way is shorter. */
export function lowerBound(problem: Problem): number {
  return bounds(problem).bound;
}

/** The same, with a way to look for a higher one. */
export function bounds(problem: Problem) {
  const { microbatches, slack } = problem;
  const { bound, refutes } = narrowing(precedenceOf(problem, tailsAfter(problem)), microbatches, slack);
  return {
    bound,
    /**
     * Raises the bound as far as a makespan that an order has: by claims that are refuted, each halving what is left.
     *
     * Yields the bound so far now and then, and the highest at the end.
     */
    *raise(best: number): Generator<number, void> {
      let low = bound, high = best - slack;
      const isRefuted = function* (makespan: number): Generator<number, boolean> {
        const steps = refutes(makespan);
        for (;;) {
          const { value, done } = steps.next();
          if (done) return value;
          yield low;
        }
      };
      if (low < high && (yield* isRefuted(high))) return yield high;
      while (high - low > 1e-4 * high) {
        const middle = (low + high) / 2;
        if (yield* isRefuted(middle)) low = middle;
        else high = middle;
      }
      yield low;
    },
  };
}
