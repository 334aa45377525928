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
      const parts = partsOf(problem);
      recordInParts(problem, { first: 0, parts, length: problem.k / parts }, inner.record);
    },
  };
}

/** Neighbouring parts of a product's sums over k. */
export interface Parts {
  /** Of all k products the first that belongs to them. */
  readonly first: number;
  /** How many parts there are. */
  readonly parts: number;
  /** Products in each. */
  readonly length: number;
}

/** A product of a single matrix in parts: `record` makes a product of each into scratch, and a kernel adds them up into the result. */
export function recordInParts(
  problem: Problem,
  { first, parts, length }: Parts,
  record: (products: Problem) => void,
): void {
  const { m, n, out, a, b, transposeA, transposeB, scale, accumulate } = problem;
  const { device } = out.tensor;
  const sums = empty(device, [parts, m, n], "workspace");
  const along = (layout: Layout, rows: boolean): Layout => {
    const stride = rows ? layout.rowStride : 1;
    return { ...layout, offset: layout.offset + first * stride, strides: [length * stride, 0] };
  };
  record({
    ...{ m, n, k: length, batch: [parts, 1], transposeA, transposeB },
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
