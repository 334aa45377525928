/** What is looked at, what keys ask for, and what a search says: all that needs no browser. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { askedBy } from "../../lib/explorer/keys.ts";
import { outcomeOf } from "../../lib/explorer/outcome.ts";
import { searchFor } from "../../lib/explorer/search_worker.ts";
import { defaults } from "../../lib/explorer/settings.ts";
import { first } from "../../lib/explorer/state.ts";
import { moved, showing, ticksOf, zoomed } from "../../lib/explorer/view.ts";
import { whyOf } from "../../lib/explorer/why.ts";

test("zooming keeps the moment that it is about where it is, and nothing leaves the step", () => {
  assert.deepEqual(zoomed({ from: 0, to: 20 }, 2, 5, 20), { from: 2.5, to: 12.5 });
  assert.deepEqual(zoomed({ from: 2.5, to: 12.5 }, 0.5, 5, 20), { from: 0, to: 20 });
  assert.deepEqual(zoomed({ from: 10, to: 20 }, 0.1, 20, 20), { from: 0, to: 20 });
  assert.deepEqual(moved({ from: 5, to: 10 }, -9, 20), { from: 0, to: 5 });
  assert.deepEqual(moved({ from: 5, to: 10 }, 99, 20), { from: 15, to: 20 });
  const step = fc.record({
    until: fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
    about: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(
      step,
      fc.array(fc.double({ min: 0.1, max: 10, noNaN: true }), { maxLength: 9 }),
      ({ until, about }, factors) => {
        let view = { from: 0, to: until };
        for (const factor of factors) {
          view = moved(zoomed(view, factor, about * until, until), (factor - 5) * until, until);
          assert.ok(view.from >= 0 && view.to <= until * (1 + 1e-9) && view.to > view.from);
        }
      },
    ),
    { numRuns: 200, seed: 1 },
  );
});

test("an action that is outside the view comes into it, by as little as that takes", () => {
  assert.deepEqual(showing({ from: 5, to: 10 }, 6, 7, 20), { from: 5, to: 10 });
  assert.deepEqual(showing({ from: 5, to: 10 }, 3, 4, 20), { from: 3, to: 8 });
  assert.deepEqual(showing({ from: 5, to: 10 }, 12, 13, 20), { from: 8, to: 13 });
  assert.deepEqual(showing({ from: 5, to: 10 }, 12, 19, 20), { from: 12, to: 17 });
});

test("ticks are round, within the view and no more than there is room for", () => {
  assert.deepEqual(ticksOf({ from: 0, to: 21 }, 12), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
  assert.deepEqual(ticksOf({ from: 0.32, to: 0.61 }, 4), [0.4, 0.5, 0.6]);
  const view = fc.tuple(fc.double({ min: 0, max: 1e6, noNaN: true }), fc.double({ min: 1e-3, max: 1e6, noNaN: true }));
  fc.assert(
    fc.property(view, fc.integer({ min: 2, max: 40 }), ([from, span], most) => {
      const ticks = ticksOf({ from, to: from + span }, most);
      assert.ok(ticks.length <= most);
      const slack = 1e-6 * span + 1e-9 * from;
      assert.ok(ticks.every((at) => at >= from - slack && at <= from + span + slack));
    }),
    { numRuns: 300, seed: 1 },
  );
});

test("keys walk along a rank and from rank to rank, move an action, and go to its cause", () => {
  const { base } = outcomeOf(first), plain = { shiftKey: false, ctrlKey: false, metaKey: false, altKey: false };
  const bar = base.bars[1][3]; // 1B0, from 8 to 10
  const asked = (key: string, more = {}) => askedBy({ key, ...plain, ...more }, base, bar);
  assert.deepEqual(asked("ArrowLeft"), { go: { rank: 1, index: 2 } });
  assert.deepEqual(asked("ArrowRight"), { go: { rank: 1, index: 4 } });
  assert.deepEqual(asked("ArrowRight", { shiftKey: true }), { move: 4 });
  assert.deepEqual(asked("ArrowDown"), { go: { rank: 2, index: 3 } }); // 2F2, from 8 to 9
  assert.deepEqual(asked("ArrowUp"), { go: { rank: 0, index: 4 } }); // 0B0, from 10 to 12
  assert.deepEqual(asked("Home"), { go: { rank: 1, index: 0 } });
  assert.deepEqual(asked("End"), { go: { rank: 1, index: 7 } });
  assert.deepEqual(asked("Enter"), { go: whyOf(base, bar).cause });
  assert.deepEqual(asked("Enter"), { go: { rank: 2, index: 2 } }); // 2B0, from 6 to 8
  assert.deepEqual(asked("0"), { zoom: "all" });
  assert.equal(asked("z", { ctrlKey: true }), undefined);
  assert.equal(asked("x"), undefined);
  assert.equal(askedBy({ key: "ArrowUp", ...plain }, base, base.bars[0][0]), undefined);
});

test("a search takes what stands in the form, on the ranks that its stages are on, and says what is wrong with it", async () => {
  const { signal } = new AbortController();
  const search = (values: Partial<typeof defaults>, placement = [0, 1, 2]) =>
    searchFor({ values: { ...defaults, ...values }, microbatches: 3, placement }, signal, () => {});
  const answer = await search({ devices: "3" });
  assert.ok("found" in answer);
  assert.equal(answer.found.makespan, 11); // 9 of work and a bubble of 2 for the last rank
  assert.equal(answer.found.verdict, "Proven optimal: no schedule of one stage a rank is faster than 11");
  // In a V of halves of a stage, the bubble of the last rank is half as long; of ranges the costs are halves by themselves.
  const halves = await search({ devices: "2", f: "0.5", i: "0.5", w: "0.5" }, [0, 1, 1, 0]);
  const ranges = await search({ devices: "2", ranges: "2" }, [0, 0, 1, 1]);
  assert.ok("found" in halves && "found" in ranges);
  assert.deepEqual([halves.found.makespan, ranges.found.makespan], [9.5, 10]);
  assert.match(halves.found.verdict, /^Proven optimal: no schedule of these stages on these ranks is faster than 9.5$/);
  assert.deepEqual([halves.found.ranges, ranges.found.ranges], [1, 2]);
  const refused = async (values: Partial<typeof defaults>, pattern: RegExp) => {
    const answer = await search(values);
    assert.ok("refused" in answer && pattern.test(answer.refused), JSON.stringify(answer));
  };
  await refused({ devices: "3", cap: "0.5" }, /cap/);
  await refused({ devices: "3", f: "1,2" }, /^F has 2 values, and there are 3 stages/);
});
