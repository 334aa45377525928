/** What the page says of a state, beside closed forms and waits found pair by pair. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../lib/errors.ts";
import { moveAction } from "../../lib/explorer/edit.ts";
import { type Bar, outcomeOf, type Part, titleOf } from "../../lib/explorer/outcome.ts";
import { first, type State, withEdit, withGiven, withValue } from "../../lib/explorer/state.ts";
import { whyOf } from "../../lib/explorer/why.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { random } from "../schedules/support.ts";
import { everyWait, nameOf } from "../reference/waits.ts";

const withAll = (fields: Partial<State["values"]>) =>
  Object.entries(fields).reduce((state, [field, value]) => withValue(state, field as "f", value), first);

test("at first the page shows 1F1B on four ranks: 21 without 2BP, 15 with it", () => {
  const { base, split, gain } = outcomeOf(first);
  assert.deepEqual([base.until, split.until, gain], [21, 15, 1.4]);
  assert.deepEqual(base.priced!.simulation.peak, [4, 3, 2, 1]);
  assert.equal(titleOf(base), "1f1b-1 without 2BP");
  assert.equal(titleOf(split), "1f1b-1 with 2BP, fill");
  assert.equal(titleOf(outcomeOf(withAll({ schedule: "zb-h1" })).split), "zb-h1 split");
});

test("what recomputes runs ahead of the gradient: an R waits for nothing, and is held until its I", () => {
  const { base, split } = outcomeOf(withAll({ i: "2", r: "1", recomputed: "3", derivatives: "0" }));
  assert.deepEqual([base.until, outcomeOf(withAll({ i: "2" })).base.until], [25, 28]);
  assert.deepEqual(base.priced!.simulation.peak, [7, 6, 5, 4]);
  const early = split.bars[0].find(({ action }) => action.kind === "R")!;
  assert.equal(early.start, 4); // behind four forwards
  assert.match(whyOf(split, early).what, /^Rank 0, action 4: 0R0, recomputed ahead \(R\) of micro-batch 0 on stage 0/);
  assert.throws(
    () => outcomeOf(withAll({ r: "2" })),
    /^UserError: The cost r of stage 0 is 2 of the 1 that its backward/,
  );
});

test("ranges of a stage have equal parts of it, and W of their own: what they hold goes range by range", () => {
  const whole = withAll({ w: "2", latency: "0.5" }), ranges = withValue(whole, "ranges", "2");
  assert.deepEqual([outcomeOf(whole).base.until, outcomeOf(ranges).base.until], [33, 33]);
  assert.deepEqual([outcomeOf(whole).split.until, outcomeOf(ranges).split.until], [24, 22]);
  assert.deepEqual(outcomeOf(ranges).base.priced!.simulation.peak, [4, 3, 2, 1]);
  assert.equal(titleOf(outcomeOf(ranges).split), "1f1b-1 with 2BP, fill, 2 ranges a stage");
  // What is loaded has the stages that it has.
  const { base: { schedule: { actions } } } = outcomeOf(ranges);
  assert.equal(outcomeOf(withGiven(whole, "mine", actions, 4)).base.until > 33, true);
  assert.equal(outcomeOf(withGiven(whole, "mine", actions, 4, 2)).base.until, 33);
  assert.throws(
    () => outcomeOf(withGiven(whole, "mine", actions, 4, 3)),
    new UserError("Ranges a stage is 3, and mine has 8 stages, which no such ranges make"),
  );
});

test("critical actions follow one another through the whole step", () => {
  for (const part of [outcomeOf(first).base, outcomeOf(first).split]) {
    const path = part.bars.flat().filter(({ critical }) => critical).sort((a, b) => a.start - b.start);
    assert.equal(path.reduce((sum, { start, end }) => sum + end - start, 0), part.until, "nothing waits on it");
    path.slice(1).forEach(({ start }, index) => assert.equal(start, path[index].end));
  }
});

test("costs are one for all stages or one for each, and links as slow as the slowest between two ranks", () => {
  const { base } = outcomeOf(withAll({ devices: "3", microbatches: "1", f: "1,2,3", i: "2", w: "1", latency: "1,2" }));
  assert.equal(base.until, 1 + 1 + 2 + 2 + 3 + 3 + 2 + 3 + 1 + 3);
  // The way from the last rank to the first is over both links.
  const { base: dealt } = outcomeOf(
    withAll({ schedule: "interleaved-1f1b", devices: "3", microbatches: "3", f: "0", i: "0", w: "0", latency: "1,2" }),
  );
  assert.equal(dealt.until, 2 * (1 + 2 + 2 + 1 + 2));
  const says = (fields: Partial<State["values"]>, message: string) =>
    assert.throws(() => outcomeOf(withAll(fields)), new UserError(message));
  says({ f: "1,2" }, "F has 2 values, and there are 4 stages: give one for all, or one for each");
  says({ latency: "1,2,3,4" }, "Latency has 4 values, and there are 3 links: give one for all, or one for each");
  says(
    { schedule: "gpipe", devices: "64", microbatches: "1024" },
    "These are some 196608 actions; at most 8192 are drawn: take fewer micro-batches",
  );
  says(
    { devices: "64", microbatches: "32", policy: "lean" },
    "The policy lean takes too long here for some 6144 actions; it can have 3072: take fewer micro-batches, or " +
      "schedule simulate on the command line",
  );
});

/** Times by relaxation, over waits found by looking at all pairs; Infinity for what never runs. */
function played({ schedule, costs }: Part): number[][] {
  const waits = everyWait(schedule, schedule.actions.map(() => []), false);
  const ends = schedule.actions.map((list) => list.map(() => Infinity));
  const endOf = (name: string) => {
    const [rank, index] = name.split(":").map(Number);
    return { rank, end: ends[rank][index] };
  };
  for (let changed = true; changed;) {
    changed = false;
    for (const [rank, list] of schedule.actions.entries()) {
      for (const [index, action] of list.entries()) {
        const arrivals = waits.filter(({ to }) => to === nameOf(rank, index)).map(({ from, passes }) => {
          const source = endOf(from);
          return source.end + costs.transfer!(source.rank, rank, passes === "activation" ? "F" : "I");
        });
        const end = Math.max(0, index > 0 ? ends[rank][index - 1] : 0, ...arrivals) +
          costs.duration(action, rank, index);
        if (end === ends[rank][index] || end === Infinity) continue;
        ends[rank][index] = end;
        changed = true;
      }
    }
  }
  return ends;
}

/** Compares every bar, and what is said of it, with what was played. */
function compare(part: Part): void {
  const ends = played(part);
  for (const bar of part.bars.flat()) {
    const { rank, index, start, end, state } = bar, why = whyOf(part, bar);
    const isFirstThatHangs = ends[rank][index] === Infinity && (index === 0 || ends[rank][index - 1] < Infinity);
    assert.equal(state, ends[rank][index] < Infinity ? "runs" : isFirstThatHangs ? "stuck" : "never");
    if (state === "runs") assert.equal(end, ends[rank][index]);
    const { cause } = why;
    if (state === "never") {
      assert.deepEqual(cause, {
        rank,
        index: part.bars[rank].findIndex((b) => b.state === "stuck"),
      });
    }
    if (state === "stuck") assert.equal(ends[cause!.rank][cause!.index], Infinity, "it waits for what never runs");
    if (state !== "runs" || !cause) continue;
    const delay = cause.rank === rank ? 0 : part.costs.transfer!(cause.rank, rank, "F");
    assert.equal(ends[cause.rank][cause.index] + delay, start, `${why.what}: ${why.because}`);
    const before = index > 0 ? ends[rank][index - 1] : 0;
    assert.equal(/idle/.test(why.because), start > before, why.because);
  }
}

test("what an action waits for is over, and has come, at the moment when it starts", () => {
  for (const fields of [{}, { schedule: "zb-v", devices: "3" }, { schedule: "hanayo", width: "2", latency: "0.5" }]) {
    const { base, split } = outcomeOf(withAll({ ...fields, f: "1", i: "1.25", w: "0.75", transfer: "0.25" }));
    compare(base);
    compare(split);
  }
});

test("of a schedule that hangs after an edit is shown what runs, and what the validator says", () => {
  const next = random(7), faults = { deadlock: 0, order: 0, none: 0 };
  const pick = (count: number) => Math.floor(next() * count);
  for (let round = 0; round < 60; round++) {
    const state = withAll({ devices: "3", microbatches: "4", schedule: round % 2 ? "1f1b-v" : "1f1b" });
    const { split } = outcomeOf(state), rank = pick(3), { length } = split.bars[rank];
    const edited = withEdit(state, "split", moveAction(split.schedule.actions, rank, pick(length), pick(length)));
    const { split: part } = outcomeOf(edited);
    let message: string | undefined;
    try {
      validate(part.schedule);
    } catch (error) {
      ({ message } = error as Error);
    }
    assert.equal(part.fault, message);
    assert.equal(part.priced === undefined, message !== undefined);
    assert.equal(part.bars.flat().length, part.schedule.actions.flat().length, "every action is drawn");
    faults[message === undefined ? "none" : message.startsWith("Deadlock") ? "deadlock" : "order"]++;
    if (part.known) compare(part);
    else assert.ok(part.bars.flat().every((bar: Bar) => bar.state === "never"));
    part.bars.forEach((row) => row.slice(1).forEach(({ start }, index) => assert.ok(start >= row[index].end - 1e-9)));
  }
  for (const [kind, count] of Object.entries(faults)) assert.ok(count > 2, `${kind}: ${count}`);
});

test("an edit stays what it is while costs change, and one of other ranks is refused", () => {
  const { base } = outcomeOf(first);
  const edited = withEdit(first, "base", moveAction(base.schedule.actions, 3, 0, 1));
  assert.match(outcomeOf(edited).base.fault!, /^Rank 3, action 0 \(3B0\): it needs the forward 3F0 first/);
  assert.equal(outcomeOf(edited).gain, undefined);
  assert.equal(outcomeOf(withValue(edited, "f", "2")).base.fault, outcomeOf(edited).base.fault);
  const strange = { ...edited, values: { ...edited.values, devices: "2" } };
  assert.throws(() => outcomeOf(strange), /The edit is one of 4 stages on 4 ranks, and 1f1b-1 has 2 on 2/);
});

test("a schedule from elsewhere is compared with itself, split or whole", () => {
  const { split } = outcomeOf(first);
  const { base, split: given } = outcomeOf(withGiven(first, "mine", split.schedule.actions, 4));
  assert.deepEqual([base.until, given.until, titleOf(given)], [21, 15, "mine split"]);
});
