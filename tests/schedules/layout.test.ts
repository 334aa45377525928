import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { blocksOfLayout, readLayout, writeLayout } from "../../lib/schedules/csv/layout.ts";

test("a layout's stages are what Megatron-LM's documentation says of its examples", () => {
  assert.deepEqual(readLayout("Et*3|(tt|)*3L"), ["Ettt", "tt", "tt", "tt", "L"]);
  assert.deepEqual(readLayout("Et*3|(tt|)*2,m|L"), ["Ettt", "tt", "tt", "m", "L"]);
  assert.deepEqual(readLayout("E|t,t|(t*2|)*2L"), ["E", "tt", "tt", "tt", "L"]);
  assert.deepEqual(readLayout("E||tL"), ["E", "", "tL"]);
  assert.deepEqual(blocksOfLayout("Et*3|(tt|)*29L"), [3, ...Array(29).fill(2), 0]);
});

test("any layout is read as by repeating what stands before * until none is left", () => {
  const letter = fc.constantFrom("t", "E", "L", "m");
  const item = fc.oneof(
    letter,
    fc.constantFrom("|", ","),
    fc.tuple(letter, fc.integer({ min: 1, max: 12 })).map(([one, times]) => `${one}*${times}`),
  );
  const group = fc.tuple(fc.array(item, { maxLength: 4 }), fc.integer({ min: 1, max: 12 }))
    .map(([items, times]) => `(${items.join("")})*${times}`);
  fc.assert(
    fc.property(fc.array(fc.oneof(item, group), { maxLength: 6 }), (items) => {
      let plain = items.join("").replaceAll(",", "");
      for (const pattern of [/([a-zA-Z])\*(\d+)/, /\(([^()]*)\)\*(\d+)/]) {
        while (pattern.test(plain)) plain = plain.replace(pattern, (_, what, times) => what.repeat(Number(times)));
      }
      assert.deepEqual(readLayout(items.join("")), plain.split("|"));
    }),
    { seed: 1, numRuns: 300 },
  );
});

test("the blocks of stages are written and read as the same", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 30 }), { minLength: 1, maxLength: 8 }), (blocks) => {
      assert.deepEqual(blocksOfLayout(writeLayout(blocks)), blocks);
    }),
    { seed: 1, numRuns: 100 },
  );
});

for (
  const [what, layout, message] of [
    ["a letter that is none", "Et*3|xL", /^UserError: Layout "Et\*3\|xL": "x" at position 6 is none of E, t, m, L,/],
    ["a group that stays open", "E(tt|*2L", /: \* at position 6 is for a letter or \(\.\.\.\), and a \| is neither$/],
    ["an open parenthesis", "Et(t|L", /: \( at position 3 is not closed$/],
    ["a parenthesis that closes nothing", "Et)L", /: \) at position 3 closes nothing$/],
    ["a repeat without a number", "Et*|L", /: \* at position 3 needs a whole number of 1 or more after it$/],
    ["a repeat of 0", "Et*0|L", /: \* at position 3 needs a whole number of 1 or more after it$/],
    ["a repeat of nothing", "*3tL", /"\*" at position 1 is none of E/],
    ["a repeat of repeats without end", "E((((t*999)*999)*999)*999)L", /: it has more than 65536 letters$/],
    [
      "no embedding",
      "t*4|tL",
      /^UserError: Layout "t\*4\|tL" must have one E before all t and one L after them, as in/,
    ],
    ["no loss", "Et|t", /must have one E before all t and one L after them/],
    ["two embeddings", "Et|EtL", /must have one E before all t and one L after them/],
    [
      "multi-token prediction",
      "Et|mL",
      /^UserError: Layout "Et\|mL" has m, a block of multi-token prediction, which no/,
    ],
    ["nothing", "", /must have one E/],
  ] as const
) {
  test(`a layout with ${what} is refused in one line`, () => {
    assert.throws(() => blocksOfLayout(layout), message);
  });
}
