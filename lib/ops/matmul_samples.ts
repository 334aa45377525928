/** Gradients of weights as a product for each sample and their sum: the way that an einsum over samples goes. */
import type { Candidate } from "./choice.ts";
import type { Problem } from "./matmul_problem.ts";
import { recordInParts } from "./matmul_split.ts";

/** What scratch takes at most, which every device can bind; a single product takes what it takes. */
const mostBytes = 2 ** 27;

/**
 * A product of each sample into scratch, f32, all of them recorded by `run` as one batch, and then their sum. It is there to measure what that
 * costs beside one product over all samples (public code of the models of the 2BP paper, arXiv 2405.18047, does it so), and
 * is taken only where it is asked for by name.
 */
export function perSample(run: (products: Problem) => void): Candidate<Problem> {
  return {
    name: perSampleName,
    supports: (_, { batch, k, sampleRows }) =>
      batch[0] * batch[1] === 1 && Number.isInteger(sampleRows) && k % sampleRows! === 0,
    hopeless: () => true,
    record(problem) {
      const { m, n, k, accumulate } = problem;
      const length = problem.sampleRows!, samples = k / length;
      const atOnce = Math.max(1, Math.floor(mostBytes / (4 * m * n)));
      for (let done = 0; done < samples; done += atOnce) {
        const part = { ...problem, accumulate: accumulate || done > 0 };
        recordInParts(part, { first: done * length, parts: Math.min(atOnce, samples - done), length }, run);
      }
    },
  };
}

/** The candidate's name, see {@link perSample}. */
export const perSampleName = "per-sample";
