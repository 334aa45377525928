import assert from "node:assert/strict";
import { test } from "node:test";
import { explainGain } from "../../lib/measure/gain.ts";
import { countOutliers } from "../../lib/measure/outliers.ts";
import { generator } from "../../lib/random.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

const zip = (first: readonly number[], second: readonly number[]) =>
  first.map((time, at) => [time, second[at]] as const);

// Median 102 and median absolute deviation 1, so that more than 107 is long; of the second 51, 1 and 56.
const first = [100, 101, 101, 102, 103, 103, 104], second = [50, 50, 50, 51, 52, 52, 52];

test("a step is long beyond 5 median absolute deviations above its schedule's median, and only above", () => {
  const others = zip(first.slice(0, -1), second.slice(0, -1));
  assert.deepEqual(countOutliers([...others, [107, 52]]), [0, 0]);
  assert.deepEqual(countOutliers([...others, [107.01, 52]]), [1, 0]);
  assert.deepEqual(countOutliers([...others, [103, 56]]), [0, 0]);
  assert.deepEqual(countOutliers([...others, [103, 56.01]]), [0, 1]);
  assert.deepEqual(countOutliers([...zip(first.slice(1), second.slice(1)), [20, 50]]), [0, 0]);
});

test("a pair whose both steps are long is no outlier, whatever their ratio", () => {
  const others = zip(first.slice(0, -1), second.slice(0, -1));
  assert.deepEqual(countOutliers([...others, [204, 102]]), [0, 0]);
  assert.deepEqual(countOutliers([...others, [110, 500]]), [0, 0]);
});

test("of a schedule whose steps mostly take the same, five mean absolute deviations count; where all do, none is long", () => {
  const quick = [...second, 50, 51, 52], same = quick.map(() => 10);
  assert.deepEqual(countOutliers(zip(same, quick)), [0, 0]);
  // One of 10 at 14: the mean deviation is 0.4, and 12 the limit. Four of 10 at 10.1 are a step of the clock: 0.04, and 10.2.
  assert.deepEqual(countOutliers(zip([...same.slice(1), 14], quick)), [1, 0]);
  assert.deepEqual(countOutliers(zip([10, 10, 10, 10, 10, 10, 10.1, 10.1, 10.1, 10.1], quick)), [0, 0]);
});

test("fewer than 6 pairs have no count of outliers", () => {
  assert.equal(countOutliers(zip([1, 1, 1, 1, 9], [1, 1, 1, 1, 1])), undefined);
  assert.deepEqual(countOutliers(zip([1, 1, 1, 1, 1, 9], [1, 1, 1, 1, 1, 1])), [1, 0]);
});

test("normal noise makes an outlier of less than 1 % of 21 pairs", () => {
  const random = generator("outliers");
  let found = 0;
  for (let run = 0; run < 500; run++) {
    const pairs = Array.from({ length: 21 }, () => [100 + 4 * random.normal(), 90 + 4 * random.normal()] as const);
    const [one, other] = countOutliers(pairs)!;
    found += one + other;
  }
  assert.ok(found > 0 && found < 0.01 * 500 * 21, `${found} of ${500 * 21}`);
});

test("a gain counts them and stays the median over all pairs", () => {
  const base = generate("gpipe", { devices: 2 });
  const pairs = zip([100, 101, 101, 102, 103, 103, 204], [50, 50, 50, 51, 52, 52, 50]);
  const { gain, outliers, pairs: count } = explainGain(base, twoStage(base), pairs);
  assert.deepEqual([gain, outliers, count], [102 / 51, [1, 0], 7]);
  assert.equal("outliers" in explainGain(base, twoStage(base), pairs.slice(0, 5)), false);
});
