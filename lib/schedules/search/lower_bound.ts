import { F, I, W } from "../program.ts";
import { linksOf, type Problem } from "./problem.ts";

/**
 * A time that no order of F, I, W and B can beat under the cap: the largest of five arguments on each rank, a backward being
 * whichever way is shorter.
 *
 * - A rank starts when its first activation arrives, and then has all its work to do.
 * - It can run no I, and so no W, before the first gradient comes back; until then it has as many F as fit.
 * - After its last I the gradient must go up to the first rank, whose W still follows; and before its last I it must have
 *   run the backwards without which that one does not fit.
 * - The last two together.
 * - When only K micro-batches fit between their F and their W, the F of micro-batch k + K waits for the W of micro-batch k,
 *   which has been down to the last rank and back: one round trip for every K.
 */
export function lowerBound(problem: Problem): number {
  const { devices, microbatches: m, time, tails, take, give, cap, workspace, gradient, backward, room } = problem;
  const { down, up } = linksOf(problem);
  let forwards = 0;
  const head = time.map((_, r) => {
    const here = forwards;
    forwards += time[r][F] + down[r];
    return here;
  });
  // When the first gradient can be at each rank.
  const first: number[] = new Array(devices).fill(0);
  for (let r = devices - 1, at = forwards; r >= 0; r--) {
    first[r] = at;
    at += gradient[r] + up[r];
  }
  let bound = 0;
  const tail = tails.map(({ sum, time }) => sum + time);
  let after = backward[0] - gradient[0] + tail[0];
  for (let r = 0; r < devices; r++) {
    const f = time[r][F], i = gradient[r], rest = backward[r] - i;
    const [a, d] = take[r];
    const fit = a > 0 ? Math.floor((cap[r] - room[r]) / a + 1e-9) : m;
    const idle = first[r] - head[r] - Math.min(first[r] - head[r], Math.min(m, fit) * f);
    const tooMuch = m * a + (m - 1) * (d - give[r][I]) + room[r] - cap[r];
    const before = give[r][W] > 0 ? Math.min(m - 1, Math.max(0, Math.ceil(tooMuch / give[r][W] - 1e-9))) : 0;
    bound = Math.max(bound, head[r] + idle + m * (f + backward[r]) + tail[r]);
    bound = Math.max(bound, head[r] + idle + m * (f + i) + before * rest + after);
    const least = Math.min(a, a - give[r][I] + d);
    const inFlight = least > 0 ? Math.min(m, 1 + Math.floor((cap[r] - a - workspace[r][F]) / least + 1e-9)) : m;
    const trips = Math.floor((m - 1) / inFlight);
    const back = first[r] - head[r] + i;
    bound = Math.max(bound, head[r] + trips * (back + rest) + (m - 1 - trips * inFlight) * f + back + after);
    after += i + (r + 1 < devices ? up[r + 1] : 0);
  }
  return bound;
}
