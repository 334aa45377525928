/** Whether timestamps in coarse steps are known as such. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { grainNote, grainOf } from "../../lib/explorer/timestamps.ts";

test("timestamps in steps are known by what all times are multiples of, round by round", () => {
  // As Dawn has them where they are blurred: without their lower 16 bits, in nanoseconds.
  const at = (ms: number) => Math.floor(ms * 1e6 / 65536) * 65536 / 1e6;
  const ends = [812.377, 813.9, 820.25, 833.333, 834.5];
  const times = ends.slice(1).map((end, index) => at(end) - at(ends[index]));
  const first = grainOf(times.slice(0, 2));
  assert.ok(Math.abs(first / 0.065536 - Math.round(first / 0.065536)) < 1e-9, `${first}`);
  assert.equal(grainOf(times, first), 0.065536);
  assert.match(grainNote(0.065536)[0], /^Timestamps of this browser come in steps of 0\.065536 ms/);

  assert.equal(grainOf([1.000003, 2.50001, 0, 0.7]), 0.000001);
  assert.equal(grainOf([]), 0);
  assert.deepEqual(grainNote(0.000001), []);
});
