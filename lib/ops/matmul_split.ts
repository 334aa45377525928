/** Products of few elements and long sums, as gradients of weights are: the sums in several parts side by side. */
import { kernel } from "../gpu/kernel.ts";
import { empty, release } from "../tensor.ts";
import type { Candidate } from "./choice.ts";
import { lanes } from "./elementwise.ts";
import { inFours, type Layout, type Problem } from "./matmul_problem.ts";

const gather = kernel("matmul_gather", "gather");

/** Workgroups that keep a large GPU busy; with fewer, parts of sums go side by side. */
const enoughGroups = 256;
/** Steps of k that a part has at least: shorter ones cost more to add up than they gain. */
const shortestPart = 128;

/** `inner`, which makes 64 x 64 elements a workgroup, on parts of k as a batch, and a second kernel that adds them up. */
export function splitCandidate(inner: Candidate<Problem>): Candidate<Problem> {
  return {
    name: `${inner.name} split`,
    supports: (info, problem) => partsOf(problem) > 1 && inner.supports(info, problem),
    hopeless: (info, problem) => inner.hopeless?.(info, problem) ?? false,
    record(problem) {
      const { m, n, k, out, a, b, transposeA, transposeB, scale, accumulate } = problem;
      const { device } = out.tensor;
      const parts = partsOf(problem);
      const sums = empty(device, [parts, m, n], "workspace");
      const along = (layout: Layout, rows: boolean): Layout => ({
        ...layout,
        strides: [k / parts * (rows ? layout.rowStride : 1), 0],
      });
      inner.record({
        ...problem,
        k: k / parts,
        batch: [parts, 1],
        out: { tensor: sums, rowStride: n, offset: 0, strides: [m * n, 0] },
        a: along(a, transposeA),
        b: along(b, !transposeB),
        accumulate: false,
        scale: 1,
      });
      const { rowStride, offset } = out;
      const parameters = { m, n, count: parts, rowStride, offset, scale, accumulate: Number(accumulate) };
      device.dispatch(gather, parameters, [out.tensor, sums], lanes(m * n));
      release(sums); // reused at the earliest by a kernel recorded after these
    },
  };
}

/** The power of two of parts that fills a GPU, 1 where the product does so undivided or cannot be divided. */
function partsOf(problem: Problem): number {
  const { m, n, k, batch } = problem;
  if (batch[0] * batch[1] !== 1 || !inFours(problem)) return 1;
  const groups = Math.ceil(m / 64) * Math.ceil(n / 64);
  let parts = 1;
  while (k % (8 * parts) === 0 && k / (2 * parts) >= shortestPart && 2 * parts * groups <= enoughGroups) parts *= 2;
  return parts;
}
