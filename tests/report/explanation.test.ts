import assert from "node:assert/strict";
import { test } from "node:test";
import { explainProfile } from "../../lib/measure/explain/explain.ts";
import {
  accountTable,
  criticalTable,
  explainedTimelines,
  explanationSections,
  explanationText,
  explanationTrace,
  gainsTable,
  verdictText,
  waitsTable,
} from "../../lib/report/explanation.ts";
import { checkSpans } from "../../lib/schedules/check/spans.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { lower } from "../../lib/schedules/program.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { tracedRun } from "../measure/traced.ts";

const stages = [0, 1, 2].map((stage) => ({ F: 3 + stage, I: stage, W: 4, B: 3.5 + stage }));
const base = generate("1f1b-1", { devices: 3 }), split = twoStage(base);
const run = { stages, comm: 0.5, host: 0.25, tail: 1, noise: 0.1 };
const explanation = await explainProfile(tracedRun(split, run), { also: [tracedRun(base, run)], budget: 500 });
const length = explanation.steps[explanation.typical].length;

test("columns of the account, and rows of the critical path, add up to the step as they are printed", () => {
  for (const row of accountTable(explanation).rows) {
    const parts = row.slice(1, -1).map(Number);
    assert.ok(Math.abs(parts.reduce((sum, part) => sum + part, 0) - Number(row.at(-1))) < 0.005 * parts.length);
  }
  const critical = criticalTable(explanation).rows.map((row) => Number(row[3]));
  assert.ok(Math.abs(critical.reduce((sum, part) => sum + part, 0) - length) < 0.005 * critical.length);
});

test("the waits of a rank are those of its account, and their causes add up to them", () => {
  const waiting = accountTable(explanation).rows.map((row) => Number(row.at(-6)));
  const sums = [0, 0, 0];
  for (const row of waitsTable(explanation).rows) {
    sums[Number(row[0])] += Number(row[4]);
    const causes = [...String(row[6]).matchAll(/(\d+\.\d\d)(?:,|$)/g)].map(([, time]) => Number(time));
    assert.ok(Math.abs(causes.reduce((sum, time) => sum + time, 0) - Number(row[4])) < 0.005 * (causes.length + 1));
  }
  sums.forEach((sum, rank) => assert.ok(Math.abs(sum - waiting[rank]) < 0.03, `${sum} of ${waiting[rank]}`));
});

test("both steps are spans of the schedule that ran, also where an I takes no time, and share the axis", () => {
  const { traced, simulated } = explainedTimelines(explanation), program = lower(explanation.schedule);
  for (const { spans } of [traced, simulated]) {
    checkSpans(program, spans);
    for (const { start, end } of spans) assert.ok(end >= start);
  }
  const axes = explanationText(explanation, { width: 100 }).split("\n").filter((line) => line.trim().startsWith("|"));
  assert.equal(axes.length, 2);
  assert.equal(axes[0].slice(0, 60), axes[1].slice(0, 60));
});

test("the trace has two processes, and the second is not taken for a run", () => {
  const { traceEvents } = JSON.parse(explanationTrace(explanation));
  const slices: { pid: number; cat: string }[] = traceEvents.filter(({ ph }: { ph: string }) => ph === "X");
  const count = explanation.schedule.actions.flat().length;
  assert.equal(slices.filter(({ pid, cat }) => pid === 0 && /^[FIW]$/.test(cat)).length, count);
  assert.equal(slices.filter(({ pid, cat }) => pid === 1 && /^compared [FIW]$/.test(cat)).length, count);
  const ids = traceEvents.filter(({ ph }: { ph: string }) => ph === "s").map(({ id }: { id: number }) => id);
  assert.equal(new Set(ids).size, ids.length);
});

test("a table of gains says what it leaves out, and the verdict what more memory the fastest takes", () => {
  const [few, all] = [gainsTable(explanation, 2), gainsTable(explanation, 1000)];
  assert.equal(few.rows.length, 2);
  assert.equal(all.rows.length, explanation.alternatives.length);
  assert.ok(few.notes!.some((note) => note.startsWith(`${all.rows.length - 2} slower ones`)));
  const [fastest] = explanation.alternatives.filter(({ kind }) => kind !== "partition");
  const told = /holds up to (\d+) activations, where it held (\d+)/.exec(
    verdictText({ ...explanation, activations: 0 }),
  )!;
  assert.deepEqual(told.slice(1).map(Number), [fastest.activations, 0]);
  assert.doesNotMatch(verdictText({ ...explanation, activations: 1000 }), /holds up to/);
  assert.match(
    verdictText({ ...explanation, alternatives: [], best: explanation.schedule }),
    /nothing tried is faster/,
  );
});

test("each part of the page has a figure or a table, and figures one axis", () => {
  const sections = explanationSections(explanation);
  assert.ok(sections.every(({ figure, table }) => figure || table));
  const [traced, simulated] = sections.map(({ figure }) => (figure?.layout?.xaxis as { range: number[] })?.range);
  assert.deepEqual(traced, simulated);
});
