import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { runTimeline } from "../../lib/report/run_timeline.ts";
import { type Timeline, transfersOf } from "../../lib/report/timeline.ts";
import { chromeTrace, type TraceOptions } from "../../lib/report/trace.ts";
import { formatAction, type Schedule } from "../../lib/schedules/schedule.ts";
import { type Costs, unitCosts } from "../../lib/schedules/price/costs.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { memoryTimeline } from "../../lib/schedules/price/memory_timeline.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { names } from "../schedules/support.ts";

interface Event {
  ph: string;
  ts: number;
  dur?: number;
  tid: number;
  id: number;
  name: string;
}

/** Times in nanoseconds, as Perfetto takes them (`llround(value * 1000)`); each must be whole in the text already. */
function eventsOf(text: string): Event[] {
  for (const [, decimals] of text.matchAll(/"(?:ts|dur)":(-?\d[^,}]*)/g)) assert.match(decimals, /^\d+(\.\d{1,3})?$/);
  return JSON.parse(text).traceEvents.filter(({ ph }: Event) => ph !== "M").map((event: Event) => ({
    ...event,
    ts: Math.round(event.ts * 1000),
    dur: event.dur === undefined ? undefined : Math.round(event.dur * 1000),
  }));
}

/** Arrows as "rank action > rank action", each end on the only slice of its track that has its moment. */
function arrowsByTime(events: readonly Event[]): string[] {
  const slices = events.filter(({ ph }) => ph === "X");
  const at = ({ tid, ts }: Event) => {
    const found = slices.filter((slice) => slice.tid === tid && slice.ts <= ts && ts < slice.ts + slice.dur!);
    assert.equal(found.length, 1, `${found.length} slices of track ${tid} at ${ts}`);
    assert.ok(found[0].ts < ts || found[0].dur === 1, "strictly inside where there is an inside");
    return `${tid} ${found[0].name}`;
  };
  return events.filter(({ ph }) => ph === "s").map((start) => {
    const ends = events.filter(({ ph, id, name }) => ph === "f" && id === start.id && name === start.name);
    assert.equal(ends.length, 1);
    assert.ok(start.ts <= ends[0].ts, "forwards in time");
    return `${at(start)} > ${at(ends[0])}`;
  }).sort();
}

/**
 * Arrows as Perfetto's importer finds them: events by time, the longer slice first where several begin at once, others
 * after slices with a length; a slice ends when a later one begins, one that reaches out of an open one is dropped, and an
 * arrow belongs to the slice that began last.
 */
function arrowsByStack(events: readonly Event[]): string[] {
  const order = [...events.keys()].sort((a, b) =>
    events[a].ts - events[b].ts || (events[b].dur ?? 0) - (events[a].dur ?? 0) || a - b
  );
  const open = new Map<number, { name: string; end: number; dur: number }[]>();
  const begun = new Map<string, string>();
  const arrows: string[] = [];
  for (const index of order) {
    const { ph, ts, dur = 0, tid, name, id } = events[index];
    const stack = open.get(tid) ?? [];
    open.set(tid, stack);
    if (ph === "X") {
      while (stack.length > 0) {
        const top = stack[stack.length - 1];
        if (top.end < ts || (top.end === ts && !(top.dur === 0 && dur === 0))) stack.pop();
        else break;
      }
      const under = stack[stack.length - 1];
      assert.ok(!under || ts + dur <= under.end, `${name} would be dropped`);
      stack.push({ name, end: ts + dur, dur });
    }
    if (ph === "s") begun.set(`${name} ${id}`, `${tid} ${stack[stack.length - 1].name}`);
    if (ph === "f") arrows.push(`${begun.get(`${name} ${id}`)} > ${tid} ${stack[stack.length - 1].name}`);
  }
  return arrows.sort();
}

function expected(schedule: Schedule, { spans }: Timeline): string[] {
  return transfersOf(lower(schedule), spans).map(({ from, to }) =>
    `${from.rank} ${formatAction(from.action)} > ${to.rank} ${formatAction(to.action)}`
  ).sort();
}

/** Checks all that holds for any timeline, and returns the slices. */
function check(schedule: Schedule, timeline: Timeline, options?: TraceOptions): Event[] {
  const events = eventsOf(chromeTrace(schedule, timeline, options));
  const arrows = arrowsByTime(events);
  assert.deepEqual(arrowsByStack(events), arrows);
  assert.deepEqual(arrows, expected(schedule, timeline));
  const slices = events.filter(({ ph }) => ph === "X");
  assert.deepEqual(slices.map(({ tid, name }) => `${tid} ${name}`), [
    ...timeline.spans.map(({ rank, action }) => `${rank} ${formatAction(action)}`),
  ]);
  slices.forEach((slice, k) => {
    const next = slices[k + 1];
    if (next?.tid === slice.tid) assert.ok(slice.ts + slice.dur! <= next.ts, "one after the other");
  });
  return slices;
}

/** That each slice starts and ends at its rounded times, and lasts the difference. */
function assertRounded(slices: readonly Event[], { spans }: Timeline, microseconds = 1000): void {
  const rounded = (time: number) => Math.round(time * microseconds * 1000);
  assert.deepEqual(
    slices.map(({ ts, dur }) => [ts, ts + dur!]),
    spans.map(({ start, end }) => [rounded(start), rounded(end)]),
  );
}

const schedules = [
  ...names.map((name) => generate(name, { devices: 3, microbatches: 6 })),
  twoStage(generate("1f1b-2", { devices: 4 })),
  twoStage(generate("1f1b-2", { devices: 3 }), { policy: "end", width: 2 }),
];

test("thirds, ten-thousandths and large offsets become whole nanoseconds, and every arrow is on its own slices", () => {
  const costs = [{ f: 1 / 3, i: 1 / 3, w: 1 / 3 }, { f: 1e-4, i: 1e-4, w: 1e-4 }, {
    f: 0.1,
    i: 0.7,
    w: 1e-3,
    comm: 0.3,
  }];
  for (const schedule of schedules) {
    for (const cost of costs) {
      const simulation = simulate(schedule, unitCosts(cost));
      assertRounded(check(schedule, simulation), simulation);
      for (const offset of [1e6 / 7, 1e9]) {
        const spans = simulation.spans.map((span) => ({ ...span, start: span.start + offset, end: span.end + offset }));
        assertRounded(check(schedule, { ...simulation, spans }), { ...simulation, spans });
      }
    }
  }
});

test("actions that take no time take no arrow of a neighbour", () => {
  for (const schedule of schedules) {
    const zeroes: Parameters<typeof unitCosts>[0][] = [{ w: 0 }, { f: 0 }, { i: 0, w: 0 }, { f: 1e-4, i: 2e-4, w: 0 }];
    for (const cost of zeroes) {
      const simulation = simulate(schedule, unitCosts(cost));
      for (const slice of check(schedule, simulation)) assert.ok(slice.dur! >= 1);
    }
  }
});

test("actions of less than a nanosecond stay apart and in order", () => {
  const schedule = twoStage(generate("1f1b-2", { devices: 3 }));
  for (const [f, microseconds] of [[1e-4, 1], [0.3e-3, 1], [1 / 3, 0.01]]) {
    const timeline = simulate(schedule, unitCosts({ f, i: f, w: f }));
    check(schedule, timeline, { microseconds });
  }
});

test("memory counters are at whole nanoseconds too", () => {
  const schedule = schedules[schedules.length - 1];
  const simulation = simulate(schedule, unitCosts({ f: 1 / 3, i: 1 / 7 }));
  const memory = memoryTimeline(schedule, simulation.spans);
  const counters = eventsOf(chromeTrace(schedule, simulation, { memory })).filter(({ ph }) => ph === "C");
  assert.equal(counters.length, memory.reduce((sum, { points }) => sum + points.length, 0));
});

/** Passes as devices report them: clocks that differ, each rank's passes reaching into the next by up to `overlap`. */
function run(schedule: Schedule, costs: Costs, offsets: readonly number[], overlap: number): Timeline {
  const { spans } = simulate(schedule, costs);
  const intervals = schedule.actions.map((_, rank) =>
    spans.filter((span) => span.rank === rank).map(({ start, end }, index) => ({
      start: start + offsets[rank],
      end: end + offsets[rank] + (index % 2 ? overlap : 0),
    }))
  );
  return runTimeline(schedule, "real", { intervals })!;
}

test("measured passes that overlap a little are drawn one after the other, each with its arrows", () => {
  for (const schedule of schedules) {
    const devices = schedule.actions.length;
    const offsets = Array.from({ length: devices }, (_, rank) => 1.7e12 / 3 + rank * 12_345.678);
    check(schedule, run(schedule, unitCosts({ comm: 0.25, w: 1 / 3 }), offsets, 0));
    check(schedule, run(schedule, unitCosts({ comm: 0.25, w: 1 / 3 }), new Array(devices).fill(0.1), 2e-3));
    check(schedule, run(schedule, unitCosts({ comm: 0.25, w: 0 }), new Array(devices).fill(42), 1e-6));
  }
});

test("an arrow that clocks would have point back in time is left out", () => {
  const schedule = generate("naive", { devices: 2 });
  const { spans, makespan } = simulate(schedule);
  const wrong = spans.map((span) => span.rank === 0 ? { ...span, start: span.start + 100, end: span.end + 100 } : span);
  const events = eventsOf(chromeTrace(schedule, { spans: wrong, makespan }));
  // The activation would arrive 100 units before it is sent; the gradient only comes late.
  assert.deepEqual(arrowsByTime(events), ["1 1B0 > 0 0B0"]);
  assert.deepEqual(arrowsByStack(events), ["1 1B0 > 0 0B0"]);
});

test("any costs give a trace whose slices and arrows Perfetto takes as they are meant", () => {
  const cost = fc.oneof(fc.constant(0), fc.constant(1 / 3), fc.double({ min: 1e-5, max: 1e3, noNaN: true }));
  fc.assert(
    fc.property(
      fc.constantFrom(...schedules),
      fc.record({ f: cost, i: cost, w: cost, comm: cost }),
      fc.constantFrom(0, 1e-3, 1 / 3, 1e8),
      (schedule, costs, offset) => {
        const simulation = simulate(schedule, unitCosts(costs));
        const spans = simulation.spans.map((span) => ({ ...span, start: span.start + offset, end: span.end + offset }));
        check(schedule, { ...simulation, spans });
      },
    ),
    { seed: 12, numRuns: 150 },
  );
});
