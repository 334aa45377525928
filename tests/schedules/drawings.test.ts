import assert from "node:assert/strict";
import { test } from "node:test";
import { ganttFigure } from "../../lib/report/gantt.ts";
import { ganttText } from "../../lib/report/gantt_text.ts";
import { transfersOf } from "../../lib/report/timeline.ts";
import { chromeTrace } from "../../lib/report/trace.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { memoryTimeline } from "../../lib/schedules/price/memory_timeline.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

const base = generate("1f1b-2", { devices: 4 });
const split = twoStage(base);

test("the terminal drawing shows each action over its time and blanks where a rank idles", () => {
  const naive = generate("naive", { devices: 2 });
  assert.equal(
    ganttText(naive, simulate(naive), { width: 60 }),
    [
      "rank 0 F0          B0--- ",
      "rank 1    F0 B0---       ",
      "       |0             |5",
      "",
    ].join("\n"),
  );
});

test("the terminal drawing keeps to its width for any schedule, and every line is as long", () => {
  for (
    const schedule of [
      base,
      split,
      generate("zb-v", { devices: 12 }),
      generate("gpipe", { devices: 2, microbatches: 400 }),
    ]
  ) {
    for (const width of [40, 80, 200]) {
      const lines = ganttText(schedule, simulate(schedule, unitCosts({ w: 0.3 })), { width }).trimEnd().split("\n");
      assert.equal(lines.length, schedule.actions.length + 1);
      for (const line of lines.slice(0, -1)) {
        assert.equal(line.length, lines[0].length);
        assert.ok(line.length <= width);
      }
    }
  }
});

test("sums over replicas are drawn on tracks of their own, below their rank's", () => {
  const costs = { ...unitCosts(), sum: () => 2 };
  const one = generate("interleaved-1f1b", { devices: 2, microbatches: 2 }), simulation = simulate(one, costs);
  const lines = ganttText(one, simulation, { width: 120 }).split("\n");
  assert.deepEqual(lines.map((line) => line.slice(0, 7)), ["rank 0 ", "  sums ", "rank 1 ", "  sums ", "       ", ""]);
  // Stage 2 of rank 0 ends before stage 0 does.
  assert.match(lines[1], /^ {2}sums +S2-+ +S0-+ *$/);
  assert.match(lines[3], /^ {2}sums +S3-+ +S1-+ *$/);
  const { data } = ganttFigure(one, simulation);
  const bars = data.find(({ name }) => name === "sum over replicas")!;
  assert.deepEqual(bars.base, simulation.sums.map(({ start }) => start));
  assert.deepEqual(bars.x, [2, 2, 2, 2]);
  type Event = { ph: string; tid: number; name: string; ts: number; dur: number; args: { name: string } };
  const { traceEvents }: { traceEvents: Event[] } = JSON.parse(chromeTrace(one, simulation));
  const tracks = traceEvents.filter(({ name }) => name === "thread_name").map(({ tid, args }) => [tid, args.name]);
  assert.deepEqual(tracks, [[0, "rank 0"], [2, "sums of rank 0"], [1, "rank 1"], [3, "sums of rank 1"]]);
  const drawn = traceEvents.filter(({ ph, tid }) => ph === "X" && tid >= 2);
  assert.deepEqual(
    drawn.map(({ name, ts, dur }) => [name, ts, dur]),
    simulation.sums.map(({ stage, start, end }) => [`sum of stage ${stage}`, 1000 * start, 1000 * (end - start)]),
  );
});

test("colours are only added, never needed: without them the drawing is the same text", () => {
  const plain = ganttText(split, simulate(split), { width: 120 });
  // deno-lint-ignore no-control-regex
  const coloured = ganttText(split, simulate(split), { width: 120, colour: true }).replace(/\x1b\[[\d;]*m/g, "");
  assert.equal(coloured, plain.replaceAll("-", " "));
});

test("a W of several micro-batches and a later stage of a rank can be told apart in the terminal", () => {
  const wide = twoStage(generate("gpipe", { devices: 1, microbatches: 3 }), { policy: "end", width: 3 });
  assert.match(ganttText(wide, simulate(wide), { width: 80 }), /I2-- W0-2-+ /);
  const narrow = generate("zb-v", { devices: 2 });
  assert.match(ganttText(narrow, simulate(narrow), { width: 40 }), /^rank 0 F+f/);
  assert.match(ganttText(narrow, simulate(narrow), { width: 200 }), /^rank 0 0F0/);
});

test("the figure has one bar for each action, marks the critical path, and one panel of memory a rank", () => {
  const simulation = simulate(split);
  const { data, layout } = ganttFigure(split, simulation, { memory: memoryTimeline(split, simulation.spans) });
  const bars = data.filter((trace) => trace.type === "bar") as {
    x: number[];
    base: number[];
    marker: { line: { width: number[] } };
  }[];
  assert.equal(bars.flatMap((bar) => bar.x).length, simulation.spans.length);
  assert.equal(Math.max(...bars.flatMap((bar) => bar.x.map((length, k) => bar.base[k] + length))), simulation.makespan);
  const marked = bars.flatMap((bar) => bar.marker.line.width).filter((width) => width === 2).length;
  assert.equal(marked, simulation.criticalPath.length);
  for (const axis of ["yaxis2", "yaxis3", "yaxis4", "yaxis5"]) assert.ok(axis in layout!);
});

test("the panels of the figure do not overlap", () => {
  for (const devices of [1, 3, 16, 20]) {
    const schedule = generate("gpipe", { devices });
    const simulation = simulate(schedule);
    const { layout } = ganttFigure(schedule, simulation, { memory: memoryTimeline(schedule, simulation.spans) });
    const domains = Object.entries(layout!).filter(([key]) => key.startsWith("yaxis"))
      .map(([, axis]) => (axis as { domain: [number, number] }).domain).sort((a, b) => a[0] - b[0]);
    assert.equal(domains.length, devices > 16 ? 2 : devices + 1);
    domains.forEach(([low, high], k) => {
      assert.ok(low < high && low >= -1e-9 && high <= 1 + 1e-9);
      if (k > 0) assert.ok(low > domains[k - 1][1]);
    });
  }
});

test("the memory over time peaks where peakMemory() says and ends where it began", () => {
  const memory = (stage: number) => ({
    activations: 3 + stage,
    released: 1,
    derivatives: 2,
    parameters: 10,
    workspace: { W: 4 },
  });
  for (const schedule of [base, split, generate("dualpipe-v", { devices: 4 })]) {
    const timeline = memoryTimeline(schedule, simulate(schedule).spans, memory);
    assert.deepEqual(timeline.map(({ peak }) => peak), peakMemory(schedule, memory));
    for (const { points, peak, atPeak } of timeline) {
      assert.deepEqual(points[points.length - 1].held, points[0].held);
      assert.equal(Object.values(atPeak).reduce((sum, held) => sum + held, 0), peak);
    }
  }
});

test("the trace has every action at its duration, an arrow for every transfer and counters for memory", () => {
  const simulation = simulate(split, unitCosts({ comm: 0.25 }));
  const memory = memoryTimeline(split, simulation.spans);
  const { traceEvents } = JSON.parse(chromeTrace(split, simulation, { memory, microseconds: 10 }));
  type Event = { ph: string; ts: number; dur: number; tid: number; id: number; name: string };
  const of = (ph: string): Event[] => traceEvents.filter((event: Event) => event.ph === ph);
  assert.deepEqual(
    of("X").map(({ tid, ts, dur }) => [tid, ts, dur]),
    simulation.spans.map((s) => [s.rank, s.start * 10, (s.end - s.start) * 10]),
  );
  const starts = of("s");
  const ends = of("f");
  assert.equal(starts.length, transfersOf(lower(split), simulation.spans).length);
  // Forward and gradient of each micro-batch over each of the three hops.
  assert.equal(starts.length, 2 * 3 * 8);
  const inside = ({ tid, ts }: Event) => of("X").some((x) => x.tid === tid && x.ts <= ts && ts < x.ts + x.dur);
  starts.forEach((start, k) => {
    assert.ok(inside(start) && inside(ends[k]) && start.id === ends[k].id && start.tid !== ends[k].tid);
    assert.ok(ends[k].ts >= start.ts + 2.5);
  });
  assert.equal(of("C").length, memory.reduce((sum, { points }) => sum + points.length, 0));
});
