import assert from "node:assert/strict";
import { test } from "node:test";
import { blankBatch, dryPipeline, reportMemory } from "../../lib/measure/memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import { memoryFigure, memoryOverTime } from "../../lib/report/memory.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { memoryCategories } from "../../lib/schedules/price/memory.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const llama = () => createModel("llama-tiny");

async function timelineOf(devices: number) {
  const schedule = twoStage(generate("gpipe", { devices }));
  const pipeline = dryPipeline(llama(), devices, { optimizer: adamw() });
  const { timeline, peaks } = await pipeline.step(schedule, blankBatch(llama(), devices), { timeline: true });
  pipeline.close();
  return { schedule, timeline: timeline!, peaks };
}

test("memory over time: a panel a rank, whose areas add up to what is in use, up to its peak", async () => {
  const { schedule, timeline, peaks } = await timelineOf(2);
  const { data, layout } = memoryOverTime(timeline, { title: "a title" });
  assert.deepEqual(data.map(({ name }) => name), [...memoryCategories, ...memoryCategories]);
  for (const rank of [0, 1]) {
    const areas = data.filter(({ stackgroup }) => stackgroup === `rank ${rank}`).map(({ y }) => y as number[]);
    const sums = areas[0].map((_, at) => areas.reduce((sum, y) => sum + y[at], 0));
    assert.ok(Math.abs(Math.max(...sums) * 2 ** 20 - peaks[rank].total) < 1);
    const { ticktext } = layout![rank === 0 ? "xaxis" : "xaxis2"] as { ticktext: string[] };
    assert.equal(ticktext.length, schedule.actions[rank].length + 2); // and the start and the optimizer
    const x = data[rank * memoryCategories.length].x as number[];
    assert.ok(x.every((at, index) => index === 0 || at >= x[index - 1]));
    assert.equal(x[x.length - 1], ticktext.length);
  }
});

test("memory over time of many ranks is a line each in one panel", async () => {
  const { timeline } = await timelineOf(5);
  assert.deepEqual(
    memoryOverTime(timeline).data.map(({ name }) => name),
    [0, 1, 2, 3, 4].map((rank) => `rank ${rank}`),
  );
});

test("peaks: a bar for each schedule and rank, by category, and a title that says what they are", async () => {
  const base = generate("1f1b-1", { devices: 2 });
  const report = await reportMemory(llama, { schedules: [base, twoStage(base)], samples: 1, optimizer: adamw() });
  const { data, layout } = memoryFigure(report);
  assert.deepEqual(data.map(({ name }) => name), [...memoryCategories, "peak of all together"]);
  assert.deepEqual(data[0].x, [["1f1b-1", "1f1b-1", "1f1b-1<br>2BP fill", "1f1b-1<br>2BP fill"], ["0", "1", "0", "1"]]);
  const peaks = report.rows.flatMap(({ devices }) => devices.map(({ predictedPeak }) => predictedPeak / 2 ** 20));
  assert.deepEqual(data[data.length - 1].y, peaks);
  assert.match((layout!.title as { text: string }).text, /llama-tiny.*2 ranks, predicted/);
});
