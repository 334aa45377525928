/**
 * Lays `search()` beside trying everything on random tiny pipelines, more of them and larger ones than the tests have time for:
 * about 1,000 in some minutes. The first that is not what it says to be is printed, as small as it can be made, and ends it.
 *
 *     deno run -A .ci/search_proofs.ts [CASES [SEED]]
 */
import process from "node:process";
import fc from "fast-check";
import { compare, leastNamed, type Shape, tinyOf, upTo } from "../tests/schedules/search_cases.ts";

const shapes: Shape[] = [
  [[0], 4],
  [[0, 1], 3],
  [[0, 1, 2], 2],
  [[0, 1, 2, 3], 1],
  [[0, 0], 1],
  [[0, 0, 0], 1],
  [[0, 1, 0], 1],
  [[1, 0, 0], 1],
  [[0, 1, 1, 0], 1],
  [[0, 1, 0, 1], 1],
  [[0, 0, 1, 2], 1],
  [[0, 1, 2, 0], 1],
  [[0, 1, 2, 1, 0], 1],
  [[0, 0], 2],
];
const cases = Number(process.argv[2] ?? 1000), seed = Number(process.argv[3] ?? 1);
let done = 0, refused = 0;
await fc.assert(
  fc.asyncProperty(tinyOf(shapes, upTo(2)), async (tiny) => {
    const least = await leastNamed(tiny);
    if (least !== undefined) refused++;
    await compare(least === undefined ? tiny : { ...tiny, cap: least });
    if (++done % 50 === 0) {
      console.log(`${done} of ${cases}, of ${refused} the cap was too small and is the least that will do`);
    }
  }),
  { seed, numRuns: cases },
);
console.log(`${done} pipelines: every makespan that was called proven is the least of all orders within the cap`);
