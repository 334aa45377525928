import assert from "node:assert/strict";
import { test } from "node:test";
import type { AblationReport } from "../../lib/measure/ablation/measure.ts";
import { errorBar } from "../../lib/measure/error_bar.ts";
import { explainProfile } from "../../lib/measure/explain/explain.ts";
import type { Gain } from "../../lib/measure/gain.ts";
import type { PaperModelReport } from "../../lib/measure/paper/report.ts";
import type { PredictedRun } from "../../lib/measure/prediction_errors.ts";
import type { ScalingReport } from "../../lib/measure/scaling.ts";
import type { ThroughputReport } from "../../lib/measure/throughput_report.ts";
import type { TrainingPlan } from "../../lib/planning/options.ts";
import { ablationTable } from "../../lib/report/ablation.ts";
import { isNumericColumn } from "../../lib/report/columns.ts";
import { explanationJson, gainsTable } from "../../lib/report/explanation.ts";
import { paperScalingTable, paperTimesTable } from "../../lib/report/paper.ts";
import { gaveUp, planCut, planErrors } from "../../lib/report/plan.ts";
import {
  barNotes,
  barText,
  predictionErrorsTable,
  predictionSummaryTable,
} from "../../lib/report/prediction_errors.ts";
import { scalingGainTable } from "../../lib/report/scaling.ts";
import { gainTable } from "../../lib/report/throughput.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { tracedRun } from "../measure/traced.ts";

const bar = "1.180 +- 0.040";
const gain: Gain = {
  ...{ schedule: "naive", gain: 1.2, pairs: 5, bubbleGain: 1.18, batchingGain: 1, rest: 1.02 },
  ...{ predicted: 1.18, predictedWithin: 0.04 },
  spread: [1.1, 1.3],
};
const means = /^\+-: 95 of 100 kept predictions/,
  unknown = /^Without \+-: how far .* is not known; errors are kept of 2 real/;

test("a prediction and its bar are one cell, which stands on the right as a number does", () => {
  const cells = [barText(1.18, 0.04), barText(1.18, undefined), barText(NaN, undefined), barText(12.34, 0.5, 1)];
  assert.deepEqual(cells, [bar, "1.180", "-", "12.3 +- 0.5"]);
  assert.ok(isNumericColumn(cells.map((cell) => [cell]), 0));
  assert.ok(!isNumericColumn([["1.1 - 1.2"]], 0));
});

test("what a bar means is said once, and of predictions without one that nothing is known", () => {
  const bare = { predicted: 1.1 };
  assert.deepEqual(barNotes([{ predicted: NaN }]), []);
  assert.match(barNotes([gain, gain]).join("\n"), means);
  assert.match(barNotes([bare]).join("\n"), unknown);
  const both = barNotes([gain, bare]);
  assert.equal(both.length, 2);
});

test("tables of throughput, scaling, paper and ablation print predicted gains with their bars, and say what these mean", () => {
  const { predictedWithin: _, ...without } = gain;
  const row = { schedule: "naive", twoStage: false, stepMs: { median: 1 }, samplesPerSecond: 1 },
    split = { ...row, twoStage: true };
  const of = { rows: [row, split], gains: [gain], samples: 1, model: {} } as unknown as ThroughputReport;
  const spread = { median: 1.2, quartiles: [1.1, 1.3] };
  const rung = { name: "bubble", stepMs: [spread, spread], slower: [spread, spread], gain: spread, factor: spread };
  const scaled = { ...gain, devices: 2, mode: "real", samples: 1 };
  for (
    const table of [
      gainTable(of),
      scalingGainTable({ gains: [scaled] } as unknown as ScalingReport),
      paperTimesTable({ throughput: [of] } as unknown as PaperModelReport),
      paperScalingTable({ scaling: [scaled] } as unknown as PaperModelReport),
      ablationTable({ rungs: [{ ...rung, ...gain, gain: spread, predictedFactor: 1.1 }] } as unknown as AblationReport),
    ]
  ) {
    assert.equal(table.rows[0][table.columns.indexOf("predicted")], bar);
    assert.match(table.notes!.at(-1)!, means);
  }
  const { rows, notes } = gainTable({ ...of, gains: [without] });
  assert.equal(rows[0][5], "1.180");
  assert.match(notes!.at(-1)!, unknown);
});

test("a plan says how far ratios of counted work may be off, and of a cluster's times that it is not known", () => {
  const schedule = generate("1f1b", { devices: 2 });
  const plan = {
    ...{ schedule, recompute: ["none"], makespan: 110, times: "counted", equal: { makespan: 120, plain: 132 } },
    unlimited: { schedule, makespan: 100, peak: [1] },
  } as unknown as TrainingPlan;
  const within = errorBar(1, "counted")!;
  assert.ok(within > 0);
  assert.ok(planCut(plan).includes(`takes 1.200 +- ${(1.2 * within).toFixed(3)} times as long`), planCut(plan));
  assert.ok(gaveUp(plan).includes(`10.0 +- ${(110 * within).toFixed(1)} % of time`), gaveUp(plan));
  assert.match(planErrors(plan), /may be \d+ % off \(95 of 100 kept cases; .*Of GPUs nothing is known/);
  const ofCluster = { ...plan, times: "cluster" } as const;
  assert.match(planCut(ofCluster), /takes 1\.200 times as long/);
  assert.match(gaveUp(ofCluster), /Given up: 10\.0 % of time/);
  assert.match(planErrors(ofCluster), /not known: they are of the cluster's file/);
});

test("an explanation's steps have the simulator's own error on that trace as their bar, and not that of other runs", async () => {
  const stages = [0, 1].map((stage) => ({ F: 3 + stage, I: 2, W: 4, B: 6 }));
  const run = { stages, comm: 0.5, host: 0.25, tail: 1, noise: 0.1 };
  const explanation = await explainProfile(tracedRun(generate("1f1b-1", { devices: 2 }), run), { budget: 0 });
  const { alternatives: [first], error } = explanation, within = Math.abs(error) * first.makespan;
  const { rows, notes } = gainsTable(explanation);
  assert.equal(rows[0][1], `${first.makespan.toFixed(2)} +- ${within.toFixed(2)}`);
  assert.match(notes!.join(" "), /that is \+-.*bench agreement keeps are of other runs, and not used here/);
  const { alternatives } = explanationJson(explanation) as { alternatives: { within: number }[] };
  assert.equal(alternatives[0].within, within);
});

test("errors stand by schedule and model, and over all by kind of devices", () => {
  const run = (model: string, schedule: string): PredictedRun => ({
    ...{ model, samples: 1, rounds: 1 },
    rows: [{
      ...{ schedule, microbatches: 1, stepMs: [100, 80], predictedMs: [90, 84], gain: 1.25, predicted: 1.5 },
      counted: [1, 1],
    }],
  });
  const { columns, rows } = predictionErrorsTable([run("a", "naive"), run("b", "zb-v")]);
  assert.deepEqual(columns, ["schedule", "a", "b"]);
  assert.deepEqual(rows, [["naive", "-10.0 / +5.0 / +20.0", "-"], ["zb-v", "-", "-10.0 / +5.0 / +20.0"]]);
  const gain = { median: -0.012, within: 0.05, cases: 48 };
  assert.deepEqual(predictionSummaryTable([{ mode: "virtual", devices: 4, gain }]).rows, [
    ["4 virtual", "gain", 48, "-1.2", "5.0"],
  ]);
});
