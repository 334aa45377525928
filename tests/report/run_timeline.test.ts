import assert from "node:assert/strict";
import { test } from "node:test";
import { clocksOf } from "../../lib/runtime/clocks.ts";
import { ganttFigure } from "../../lib/report/gantt.ts";
import { ganttText } from "../../lib/report/gantt_text.ts";
import { chromeTrace } from "../../lib/report/trace.ts";
import { runTimeline } from "../../lib/report/run_timeline.ts";
import { transfersOf } from "../../lib/report/timeline.ts";
import { unitCosts } from "../../lib/schedules/price/costs.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

const schedule = twoStage(generate("1f1b-2", { devices: 3 }));
const simulation = simulate(schedule, unitCosts({ comm: 0.25 }));

/** A run as the simulation has it, each device's clock set wrong by its own amount. */
function intervalsWith(offsets: readonly number[]) {
  return schedule.actions.map((_, rank) =>
    simulation.spans.filter((span) => span.rank === rank).map(({ start, end }) => ({
      start: start + offsets[rank],
      end: end + offsets[rank],
    }))
  );
}

test("clocks that differ are joined so that every transfer arrives after it was sent", () => {
  const timeline = runTimeline(schedule, "real", { intervals: intervalsWith([1000, -500, 70_000]) })!;
  for (const { from, to } of transfersOf(lower(schedule), timeline.spans)) assert.ok(to.start >= from.end - 1e-6);
  // With the same delay both ways the middle of the bounds is exact.
  timeline.spans.forEach(({ start }, index) => assert.ok(Math.abs(start - simulation.spans[index].start) < 1e-6));
  assert.ok(Math.abs(timeline.makespan - simulation.makespan) < 1e-6);
});

test("one clock for all stays as it is", () => {
  const { spans } = runTimeline(schedule, "real", { intervals: intervalsWith([42, 42, 42]) })!;
  spans.forEach(({ start }, index) => assert.ok(Math.abs(start - simulation.spans[index].start) < 1e-9));
});

test("actions of virtual devices, measured one after the other, are composed", () => {
  let clock = 0;
  const intervals = schedule.actions.map((actions) => actions.map(() => ({ start: clock, end: clock += 1 })));
  const timeline = runTimeline(schedule, "virtual", { intervals })!, { makespan } = timeline;
  const titles = [timeline, runTimeline(schedule, "real", { intervals })!, simulate(schedule)].map((each) => {
    const { title, xaxis } = ganttFigure(schedule, each).layout as Record<
      string,
      { text: string; title: { text: string } }
    >;
    return `${title.text}: ${xaxis.title.text}`;
  });
  for (
    const [at, how] of ["virtual devices: time (ms)", "real devices: time (ms)", "simulated devices: time (units)"]
      .entries()
  ) {
    assert.ok(titles[at].endsWith(how), titles[at]);
  }
  assert.equal(makespan, simulate(schedule).makespan);
});

test("a virtual step with tied parameters is over when the gradients of the twin have come, and both have been updated", () => {
  const gpipe = generate("gpipe", { devices: 3, microbatches: 2 });
  // Each action takes 1, a look and an update after the last one 0.25 and 4; the first rank's backward ends last.
  const intervals = gpipe.actions.map((actions) =>
    [...actions.map(() => 1), 0.25, 4].map((time) => ({ start: 0, end: time }))
  );
  const alone = runTimeline(gpipe, "virtual", { intervals }, () => 0.5)!;
  const tied = runTimeline(gpipe, "virtual", { intervals, optimizerAfter: [[2], [], [0]] }, () => 0.5)!;
  const last = Math.max(...tied.spans.map(({ end }) => end));
  assert.equal(alone.makespan, last + 4.25);
  assert.equal(tied.makespan, last + 0.5 + 4.25);
  assert.deepEqual(tied.spans, alone.spans);
});

test("a run without timestamps has no timeline", () => {
  assert.equal(runTimeline(schedule, "real", {}), undefined);
});

test("of two replicas the first is drawn, its sums behind the last W or B of their stages, in drawings and traces", () => {
  const devices = schedule.actions.length;
  const sums = Array.from({ length: 2 * devices }, (_, peer) => [
    { stage: peer % devices, begin: 100 + peer, end: 103.5 + peer },
  ]);
  const clocks = Array.from({ length: devices }, () => 42);
  const intervals = [...intervalsWith(clocks), ...intervalsWith(clocks.map(() => 9000))];
  const timeline = runTimeline(schedule, "real", { intervals, sums })!;
  const alone = runTimeline(schedule, "real", { intervals: intervalsWith(clocks) })!;
  assert.deepEqual(timeline.spans, alone.spans);
  assert.equal(timeline.makespan, alone.makespan);
  assert.equal(alone.sums, undefined);
  assert.deepEqual(
    timeline.sums,
    schedule.placement.map((rank, stage) => {
      const last = timeline.spans.filter(({ action }) => action.stage === stage && /[WB]/.test(action.kind)).at(-1)!;
      return { rank, stage, start: last.end, end: last.end + 3.5 };
    }),
  );
  assert.match(ganttText(schedule, timeline), /sums/);
  assert.match(chromeTrace(schedule, timeline), /sums/);
});

test("clocks that were compared are taken as they were found, drift included, and drawings and traces say how good they are", () => {
  const [a, b] = [{ offset: 5, rate: 1 }, { offset: -70, rate: 1.001 }];
  const truth = [a, b, a];
  const intervals = schedule.actions.map((_, rank) =>
    simulation.spans.filter((span) => span.rank === rank).map(({ start, end }) => ({
      start: (start - truth[rank].offset) * truth[rank].rate,
      end: (end - truth[rank].offset) * truth[rank].rate,
    }))
  );
  const peers = truth.map(({ offset, rate }, rank) => ({
    at: -offset * rate,
    offset: offset * rate,
    drift: 1 / rate - 1,
    error: rank === 1 ? 0.25 : 0.0125,
    group: rank === 1 ? 1 : 0,
  }));
  const timeline = runTimeline(schedule, "real", { intervals, clocks: { peers, error: 0.2625 } })!;
  timeline.spans.forEach(({ start }, index) => assert.ok(Math.abs(start - simulation.spans[index].start) < 1e-9));
  const said = "clocks of 2 devices aligned, ±263 µs";
  assert.match(ganttText(schedule, timeline), new RegExp(`\n *${said}\n$`));
  assert.equal(
    (ganttFigure(schedule, timeline, { mode: "real" }).layout!.title as { text: string }).text,
    `1f1b-2, 2BP fill on 3 real devices; ${said}`,
  );
  const { otherData, traceEvents } = JSON.parse(chromeTrace(schedule, timeline, { title: "a step" }));
  const [{ step, about, errorMs, ranks }] = otherData.clocks;
  assert.deepEqual({ step, about, errorMs }, { step: "a step", about: said, errorMs: 0.2625 });
  assert.ok(Math.abs(ranks[1].driftPpm + 999) < 0.01 && ranks[1].errorMs === 0.25);
  assert.deepEqual(traceEvents[1], { ph: "M", pid: 0, name: "process_labels", args: { labels: said } });
  assert.equal("otherData" in JSON.parse(chromeTrace(schedule, simulation)), false);
  const one = runTimeline(schedule, "real", {
    intervals,
    clocks: clocksOf(peers.map((clock) => ({ ...clock, group: 0 }))),
  })!;
  assert.match(ganttText(schedule, one), /\n *all ranks read one clock\n$/);
  assert.throws(() => runTimeline(schedule, "real", { intervals, clocks: clocksOf(peers.slice(1)) }), {
    name: "UserError",
    message: "runTimeline: the clocks are those of 2 devices, and the step is of 3",
  });
});
