import assert from "node:assert/strict";
import { test } from "node:test";
import { medianInterval } from "../../lib/measure/bootstrap.ts";
import { generator } from "../../lib/random.ts";

/** Chance that at least `least` of `count` draws hit what each hits with the chance p. */
function atLeast(least: number, count: number, p: number): number {
  let chance = 0, choose = 1; // count over i
  for (let i = 0; i <= count; i++) {
    if (i >= least) chance += choose * p ** i * (1 - p) ** (count - i);
    choose *= (count - i) / (i + 1);
  }
  return chance;
}

/** Student's t at 97.5 %, and the share of a normal above that times sqrt(n / (n - 1)): from printed tables. */
const printed = { 7: { t: 2.4469, tail: 0.0041 }, 15: { t: 2.1448, tail: 0.0132 }, 21: { t: 2.086, tail: 0.0163 } };

test("the interval of an odd number of values ends where the closed form of all resamples has it", () => {
  for (const [text, { tail }] of Object.entries(printed)) {
    const count = Number(text);
    const values = Array.from({ length: count }, (_, index) => index + 1);
    // The median of a resample is at most the k-th value where more than half of the draws are among the first k.
    const first = values.find((k) => atLeast((count + 1) / 2, count, k / count) > tail);
    assert.deepEqual(medianInterval(values.toReversed()), [first, count + 1 - first!], `${count} values`);
  }
});

test("the interval of a few values of an even number ends where all resamples, enumerated, have it", () => {
  const values = [1, 2, 4, 8, 16, 32];
  const medians: number[] = [];
  for (let which = 0; which < 6 ** 6; which++) {
    const drawn = Array.from({ length: 6 }, (_, digit) => values[Math.floor(which / 6 ** digit) % 6]);
    drawn.sort((a, b) => a - b);
    medians.push((drawn[2] + drawn[3]) / 2);
  }
  medians.sort((a, b) => a - b);
  const tail = 0.0024; // t at 97.5 % is 2.571, times the root of 6 / 5
  const at = Math.floor(tail * medians.length);
  assert.deepEqual(medianInterval(values), [medians[at], medians[medians.length - 1 - at]]);
});

test("95 % intervals of a skewed distribution hold its median about 95 times in 100", () => {
  const random = generator("coverage");
  for (const count of [7, 12, 21, 40]) {
    let held = 0;
    const trials = 250;
    for (let trial = 0; trial < trials; trial++) {
      const values = Array.from({ length: count }, () => 1.1 * Math.exp(0.3 * random.normal())); // of median 1.1
      const [low, high] = medianInterval(values)!;
      if (low <= 1.1 && 1.1 <= high) held++;
    }
    // 3 standard deviations of 250 trials are 4 %, of the 93 to 98 % that it comes to
    assert.ok(held / trials > 0.89 && held / trials < 0.999, `${count} values: ${held} of ${trials}`);
  }
});

test("the same values give the same interval in any order, and it narrows with their number", () => {
  const random = generator(3);
  const values = Array.from({ length: 101 }, () => random.normal());
  const all = medianInterval(values)!, few = medianInterval(values.slice(0, 11))!;
  assert.deepEqual(medianInterval(values.toSorted()), all);
  assert.ok(all[1] - all[0] < few[1] - few[0]);
});

test("fewer than 6 values, and values that are not numbers, have no interval", () => {
  assert.equal(medianInterval([1, 2, 3, 4, 5]), undefined);
  assert.equal(medianInterval([]), undefined);
  assert.equal(medianInterval([1, 2, 3, 4, 5, 6, NaN]), undefined);
  assert.deepEqual(medianInterval([2, 2, 2, 2, 2, 2]), [2, 2]);
});
