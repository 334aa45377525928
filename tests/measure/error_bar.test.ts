import assert from "node:assert/strict";
import { test } from "node:test";
import { errorBar } from "../../lib/measure/error_bar.ts";
import { errorsOf, type KeptErrors, type PredictedRow, predictionErrors } from "../../lib/measure/prediction_errors.ts";

const row = (schedule: string, of: Partial<PredictedRow> = {}): PredictedRow => ({
  ...{ schedule, microbatches: 4, stepMs: [100, 80], predictedMs: [100, 80], gain: 1.25, predicted: 1.25 },
  counted: [10, 8],
  ...of,
});

test("errors are predicted over measured, less one: a step predicted too short is below 0", () => {
  const errors = errorsOf(row("naive", { predictedMs: [90, 84], predicted: 1.5 }));
  [-0.1, 0.05, 0.2].forEach((expected, at) => assert.ok(Math.abs(errors[at] - expected) < 1e-12, `${errors}`));
});

test("over all schedules the median keeps signs, and the 95 % quantile is of the errors without them", () => {
  // Errors of steps in percent: 0 to 20, of which every other one is below 0; 21 cases, so the quantile is the 20th.
  const rows = Array.from({ length: 21 }, (_, at) => {
    const off = 1 + (at % 2 ? -at : at) / 100;
    return row(`s${at}`, { stepMs: [100, 100], predictedMs: [100 * off, 100 * off], predicted: 1.25 * off });
  });
  const { step, gain, counted } = predictionErrors([{ model: "m", samples: 1, rounds: 1, rows }]);
  assert.deepEqual([step!.cases, gain!.cases, counted], [42, 21, undefined]);
  assert.ok(Math.abs(gain!.median) < 1e-12);
  assert.ok(Math.abs(gain!.within - 0.19) < 1e-9, `${gain!.within}`);
});

test("counted work is compared in steps of plain 1f1b, with as many micro-batches", () => {
  const rows = [
    row("1f1b", { stepMs: [100, 80], counted: [10, 9] }), // 0.9 counted, 0.8 measured
    row("zb-h1", { stepMs: [120, 50], counted: [12, 6] }), // 1.2 and 1.2; 0.6 and 0.5
    row("naive", { microbatches: 1, counted: [1, 100] }),
  ];
  const { counted } = predictionErrors([{ model: "m", samples: 1, rounds: 1, rows }]);
  assert.equal(counted!.cases, 3);
  assert.ok(Math.abs(counted!.median - 0.125) < 1e-9, "of 0.125, 0 and 0.2");
  assert.equal(predictionErrors([{ model: "m", samples: 1, rounds: 1, rows: rows.slice(1) }]).counted, undefined);
});

const summary = (within: number) => ({ median: 0, within, cases: 10 });
const table: readonly KeptErrors[] = [
  { mode: "real", devices: 2, driver: "llvmpipe", step: summary(0.1), gain: summary(0.05), counted: summary(0.3) },
  { mode: "virtual", devices: 2, driver: "llvmpipe", step: summary(0.02), gain: summary(0.01) },
  { mode: "virtual", devices: 4, driver: "llvmpipe", step: summary(0.04), gain: summary(0.008), counted: summary(0.4) },
];

test("a bar is the share of its kind of devices times the prediction; between two numbers of devices the larger one", () => {
  const on = (mode: "real" | "virtual", devices: number) => ({ mode, devices, adapter: "llvmpipe: Mesa 25.0.7" });
  assert.equal(errorBar(200, "step", on("real", 2), table), 20);
  assert.equal(errorBar(2, "gain", on("virtual", 2), table), 0.02);
  assert.equal(errorBar(100, "step", on("virtual", 3), table), 4);
  assert.equal(errorBar(1, "gain", on("virtual", 3), table), 0.01);
  assert.equal(errorBar(2, "counted", undefined, table), 0.8, "of any devices: the largest");
});

test("nothing is guessed for what was not measured", () => {
  const on = { mode: "real", devices: 2, adapter: "llvmpipe" } as const;
  const bar = (of: Partial<Parameters<typeof errorBar>[2]>) => errorBar(1, "gain", { ...on, ...of }, table);
  assert.equal(bar({}), 0.05);
  assert.equal(bar({ adapter: "NVIDIA H100" }), undefined, "another driver");
  assert.equal(bar({ devices: 4 }), undefined, "more devices");
  assert.equal(bar({ mode: "virtual", devices: 8 }), undefined);
  assert.equal(bar({ replicas: 2 }), undefined);
  assert.equal(bar({ transport: "mpi" }), undefined);
  assert.equal(bar({ precision: "mixed" }), undefined);
  assert.equal(errorBar(NaN, "gain", on, table), undefined);
  assert.equal(errorBar(1, "gain", undefined, table), undefined, "on no devices");
  assert.equal(errorBar(1, "gain", on, []), undefined);
});
