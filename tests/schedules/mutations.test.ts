/** Damaged schedules: what `validate()` and everything that takes a schedule make of them, against playing them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ganttFigure } from "../../lib/report/gantt.ts";
import { ganttText } from "../../lib/report/gantt_text.ts";
import { chromeTrace } from "../../lib/report/trace.ts";
import type { Action, Kind, Schedule } from "../../lib/schedules/schedule.ts";
import { overlaps, withContention } from "../../lib/schedules/price/contention.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { memoryTimeline } from "../../lib/schedules/price/memory_timeline.ts";
import { mergeBackward } from "../../lib/schedules/transforms/merge.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { recomputeAhead } from "../../lib/schedules/transforms/recompute_ahead.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { runsToItsEnd } from "../reference/schedule_runs.ts";
import { everyPolicy, isSplit, names, schedule } from "./support.ts";

/** Where a mutation strikes, and with what: each used modulo what there is. */
interface Draw {
  rank: number;
  at: number;
  to: number;
  value: number;
}

type Lists = Action[][];

/** One fault each; some leave the schedule right, which is as good a question. */
const mutations: Record<string, (lists: Lists, draw: Draw, one: Schedule) => Partial<Schedule> | void> = {
  drop: (lists, { rank, at }) => void lists[rank].splice(at, 1),
  duplicate: (lists, { rank, at, to }) => void lists[rank].splice(to, 0, lists[rank][at]),
  swap: (lists, { rank, at, to }) => {
    [lists[rank][at], lists[rank][to]] = [lists[rank][to], lists[rank][at]];
  },
  "swap neighbours": (lists, { rank, at }) => {
    if (at > 0) [lists[rank][at - 1], lists[rank][at]] = [lists[rank][at], lists[rank][at - 1]];
  },
  move: (lists, { rank, at, to }) => void lists[rank].splice(to, 0, ...lists[rank].splice(at, 1)),
  "move to another rank": (lists, { rank, at, to }) =>
    void lists[(rank + 1) % lists.length].splice(to, 0, ...lists[rank].splice(at, 1)),
  "swap ranks": (lists, { rank }) => {
    const other = (rank + 1) % lists.length;
    [lists[rank], lists[other]] = [lists[other], lists[rank]];
  },
  "swap an I and its W": (lists, { rank, at }) => {
    const i = lists[rank].findIndex(({ kind }, index) => kind === "I" && index >= at);
    const w = lists[rank].findIndex(({ kind, stage, microbatches }) =>
      kind === "W" && stage === lists[rank][i]?.stage && microbatches.includes(lists[rank][i].microbatches[0])
    );
    if (i >= 0 && w >= 0) [lists[rank][i], lists[rank][w]] = [lists[rank][w], lists[rank][i]];
  },
  "merge two W": (lists, { rank, at }) => {
    const list = lists[rank];
    const first = list.findIndex(({ kind }, index) => kind === "W" && index >= at);
    const next = list.findIndex(({ kind, stage }, index) =>
      kind === "W" && index > first && stage === list[first]?.stage
    );
    if (first < 0 || next < 0) return;
    list[first] = { ...list[first], microbatches: [...list[first].microbatches, ...list[next].microbatches] };
    list.splice(next, 1);
  },
  "merge an I and its W": (lists, { rank, at }) => {
    const list = lists[rank];
    const i = list.findIndex(({ kind }, index) => kind === "I" && index >= at);
    const w = list.findIndex(({ kind, stage, microbatches }) =>
      kind === "W" && stage === list[i]?.stage && microbatches[0] === list[i].microbatches[0]
    );
    if (i < 0 || w < 0) return;
    list[i] = { ...list[i], kind: "B" };
    list.splice(w, 1);
  },
  "split a B": (lists, { rank, at, to }) => {
    const list = lists[rank];
    const b = list.findIndex(({ kind }, index) => kind === "B" && index >= at);
    if (b < 0) return;
    const { stage, microbatches } = list[b];
    list.splice(b, 1, { kind: "I", stage, microbatches });
    list.splice(Math.max(b + 1, to), 0, { kind: "W", stage, microbatches });
  },
  "a pair that waits for each other": (lists, { rank, at }) => {
    // A forward of this rank behind the backward that needs it from the next one, where the two are neighbours in the pipeline.
    const forward = lists[rank].findIndex(({ kind }, index) => kind === "F" && index >= at);
    const backward = lists[rank].findIndex(({ kind }, index) => kind !== "F" && index > forward);
    if (forward >= 0 && backward >= 0) lists[rank].splice(backward, 0, ...lists[rank].splice(forward, 1));
  },
  "change a kind": (lists, { rank, at, value }) => {
    lists[rank][at] = { ...lists[rank][at], kind: ["F", "I", "W", "B", "X", "R"][value % 6] as Kind };
  },
  "change a micro-batch": (lists, { rank, at, value }) => {
    const microbatches = 1 +
      Math.max(0, ...lists.flat().flatMap((action) => action.microbatches).filter(Number.isInteger));
    const odd = [NaN, -1, 0.5, microbatches];
    const other = value % 7 < 4 ? odd[value % 4] : value % microbatches;
    lists[rank][at] = { ...lists[rank][at], microbatches: [other, ...lists[rank][at].microbatches.slice(1)] };
  },
  "carry none, or one twice": (lists, { rank, at, value }) => {
    const [microbatch] = lists[rank][at].microbatches;
    lists[rank][at] = { ...lists[rank][at], microbatches: value % 2 ? [] : [microbatch, microbatch] };
  },
  "change a stage": (lists, { rank, at, value }, { placement: { length: stages } }) => {
    const odd = [NaN, -1, 0.5, stages];
    lists[rank][at] = { ...lists[rank][at], stage: value % 7 < 4 ? odd[value % 4] : value % stages };
  },
  "add or drop a stage": (_, { value }, { placement }) => ({
    placement: value % 2 ? placement.slice(0, -1) : [...placement, placement[0]],
  }),
  "drop a rank": (lists) => void (lists.length > 1 && lists.pop()),
  "change the placement": (_, { value }, { placement, actions: { length: devices } }) => {
    const rank = [NaN, -1, devices, value % devices][(value >> 2) % 4];
    return { placement: placement.map((old, stage) => stage === value % placement.length ? rank : old) };
  },
};

const base = fc.record({
  name: fc.constantFrom(...names),
  devices: fc.integer({ min: 1, max: 4 }),
  split: fc.boolean(),
  ahead: fc.boolean(),
  policy: fc.constantFrom(...everyPolicy({ every: [1, 2], cap: [40] })),
  width: fc.integer({ min: 1, max: 3 }),
}).map(({ name, devices, split, ahead, policy, width }) => {
  const plain = generate(name, { devices, microbatches: 2 * devices });
  const one = ahead ? recomputeAhead(plain) : plain;
  return split && !isSplit(one) ? twoStage(one, { policy, width }) : one;
});

const damaged = fc.record({
  base,
  strokes: fc.array(
    fc.record({
      what: fc.constantFrom(...Object.keys(mutations)),
      rank: fc.nat(),
      at: fc.nat(),
      to: fc.nat(),
      value: fc.nat(),
    }),
    { maxLength: 3 },
  ),
}).map(({ base, strokes }) => {
  let one = base;
  for (const { what, rank: drawn, at, to, value } of strokes) {
    const lists = one.actions.map((list) => [...list]);
    const rank = drawn % lists.length;
    const { length } = lists[rank];
    if (length === 0) continue;
    const change = mutations[what](lists, { rank, at: at % length, to: to % length, value }, one);
    one = { ...one, actions: lists, ...change };
  }
  return { base, one, what: strokes.map(({ what }) => what) };
});

const messageOf = (run: () => unknown): string | undefined => {
  try {
    run();
  } catch (error) {
    assert.equal((error as Error).name, "UserError", `${(error as Error).stack}`);
    return (error as Error).message;
  }
};

test("validate() accepts exactly the damaged schedules that can be played to their end, and all others take the same", () => {
  const seen = { accepted: 0, refused: 0 };
  const messages = new Map<string, number>();
  fc.assert(
    fc.property(damaged, ({ base, one }) => {
      const message = messageOf(() => validate(one));
      assert.equal(message === undefined, runsToItsEnd(one), message);
      seen[message === undefined ? "accepted" : "refused"]++;
      if (message) messages.set(message.replace(/[\d.-]+|NaN/g, "#").slice(0, 40), 1);
      const costs = unitCosts();
      const own = message === undefined ? simulate(one) : simulate(base);
      for (
        const [what, take] of Object.entries({
          simulate: () => simulate(one),
          peakMemory: () => peakMemory(one),
          mergeBackward: () => validate(mergeBackward(one)),
          memoryTimeline: () => memoryTimeline(one, own.spans),
          overlaps: () => overlaps(one, own),
          withContention: () => withContention(one, costs, 1.5),
          toCsv: () => toCsv(one),
          "toCsv, transfers": () => toCsv(one, { transfers: true }),
          ganttText: () => ganttText(one, own),
          ganttFigure: () => ganttFigure(one, own),
          chromeTrace: () => chromeTrace(one, own),
        })
      ) assert.equal(messageOf(take), message, what);
      if (message !== undefined) assert.equal(messageOf(() => twoStage(one)), message, "twoStage");
      else if (!isSplit(one)) validate(twoStage(one));
    }),
    { seed: 12, numRuns: 1000 },
  );
  assert.ok(seen.accepted > 150 && seen.refused > 400, JSON.stringify(seen));
  assert.ok(messages.size > 20, `${messages.size} kinds of faults`);
});

const takers: ((one: Schedule) => unknown)[] = [
  validate,
  (one) => simulate(one),
  (one) => peakMemory(one),
  mergeBackward,
  (one) => twoStage(one),
  (one) => toCsv(one),
];

test("what is no schedule at all is refused in one line by everything that takes one", () => {
  const good = generate("gpipe", { devices: 2, microbatches: 2 });
  const [first, second] = good.actions;
  const broken: [what: Partial<Record<keyof Schedule, unknown>>, message: RegExp][] = [
    [{ actions: undefined }, /The actions of a schedule are one list for each rank/],
    [{ actions: Object.assign(new Array(2), { 0: first }) }, /The actions of a schedule are one list for each rank/],
    [{ actions: [first, undefined] }, /The actions of a schedule are one list for each rank/],
    [{ actions: [first, [undefined, ...second]] }, /^Rank 1, action 0 is none: an action has a kind/],
    // deno-lint-ignore no-sparse-arrays
    [{ actions: [first, [, ...second]] }, /^Rank 1, action 0 is none: an action has a kind/],
    [{ actions: [first, [{ kind: "F", stage: 1 }, ...second.slice(1)]] }, /^Rank 1, action 0 is none/],
    [{ actions: [first, [{ kind: "F", stage: "1", microbatches: [0] }, ...second.slice(1)]] }, /there is no stage 1;/],
    [{ placement: undefined }, /The placement of a schedule lists the rank of each stage/],
    [{ placement: [] }, /The placement of a schedule lists the rank of each stage/],
    [{ actions: [] }, /The actions of a schedule are one list for each rank/],
  ];
  for (const [what, message] of broken) {
    const one = { ...good, ...what } as Schedule;
    for (const take of takers) {
      assert.throws(() => take(one), { name: "UserError", message });
    }
  }
});

test("a schedule that is changed after it was accepted is looked at again", () => {
  const one = generate("gpipe", { devices: 2, microbatches: 2 });
  const { makespan } = simulate(one);
  assert.equal(makespan, 9);
  (one.actions[1] as Action[]).reverse();
  for (const take of takers) {
    assert.throws(() => take(one), { name: "UserError", message: /it needs the forward 1F0 first/ });
  }
});

test("times of another schedule are refused where a schedule is drawn or its memory followed", () => {
  const one = schedule(["0F0 0B0", "1F0 1B0"]);
  const { spans, ...rest } = simulate(one);
  const wrong = [
    [spans.slice(0, 3), /^The times are not those of test: 1B0 of rank 1 has none$/],
    [[...spans, spans[3]], /action 2 of rank 1 is 1B0, and the schedule runs no more there$/],
    [spans.toReversed(), /action 0 of rank 1 is 1B0, and the schedule runs 1F0 there$/],
    [spans.with(0, { ...spans[0], end: NaN }), /^Rank 0 runs 0F0 from 0 to NaN; times must be finite numbers$/],
  ] as const;
  for (const [others, message] of wrong) {
    const timeline = { ...rest, spans: others, criticalPath: [] };
    for (const take of [ganttText, ganttFigure, chromeTrace, overlaps]) {
      assert.throws(() => take(one, timeline), { name: "UserError", message });
    }
    assert.throws(() => memoryTimeline(one, others), { name: "UserError", message });
  }
});
