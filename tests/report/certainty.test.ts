import assert from "node:assert/strict";
import { test } from "node:test";
import { certaintyNotes, rangeText } from "../../lib/report/certainty.ts";

const ratio = (name: string, spread: [number, number], interval?: [number, number], pairs = 21) => ({
  ...{ name, spread, pairs },
  ...(interval ? { interval } : {}),
});

test("a table of ratios names those that may as well be 1, by the quartiles or by the interval alone", () => {
  const notes = certaintyNotes([
    ratio("surely more", [1.1, 1.2], [1.12, 1.18]),
    ratio("wide", [0.99, 1.2], [0.98, 1.22]),
    ratio("wide too", [1, 1.3], [1.1, 1.2]),
    ratio("surely less", [0.8, 0.9], [0.82, 0.88]),
    ratio("few", [1.01, 1.2], [0.98, 1.22]),
  ]);
  assert.deepEqual(notes.slice(0, 2), [
    "wide, wide too: the quartiles include 1: not shown by this run.",
    "few: the 95 % interval includes 1: not shown by this run.",
  ]);
  assert.match(notes[2], /^95 % interval: .*bootstrap/);
  assert.equal(notes.length, 3);
});

test("where there are too few pairs for an interval, the table says so", () => {
  assert.deepEqual(certaintyNotes([ratio("a", [1.1, 1.2], undefined, 5)]), [
    "Fewer than 6 pairs have no 95 % interval.",
  ]);
  assert.deepEqual(certaintyNotes([ratio("of an old report", [1.1, 1.2])]), []);
});

test("pairs of which one step alone was long are counted by schedule in a note, and schedules without them are not named", () => {
  const [note, ...others] = certaintyNotes([
    { ...ratio("a", [1.1, 1.2]), outliers: [2, 1] },
    { ...ratio("none", [1.1, 1.2]), outliers: [0, 0] },
    { ...ratio("b", [1.1, 1.2], undefined, 60), outliers: [0, 1] },
    ratio("of an old report", [1.1, 1.2]),
  ]);
  assert.equal(
    note,
    "Pairs of which one step alone was long, more than 5 median absolute deviations above its schedule's median: " +
      "a 3 of 21 (2 without 2BP, 1 with), b 1 of 60 (0 without 2BP, 1 with). Rather the machine than the schedule: they " +
      "count as any pair, and move medians little.",
  );
  assert.deepEqual(others, []);
});

test("a range is two numbers, or a hyphen", () => {
  assert.equal(rangeText([1, 1.23456]), "1.000 - 1.235");
  assert.equal(rangeText([1, 1.23456], 2), "1.00 - 1.23");
  assert.equal(rangeText(undefined), "-");
});
