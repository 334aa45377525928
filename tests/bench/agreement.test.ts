import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { keepRun, keptName, keptPlaces, pageText, readFolder, tableModule } from "../../bench/kept_agreement.ts";
import { errorBar } from "../../lib/measure/error_bar.ts";
import { keptErrors } from "../../lib/measure/kept_errors.ts";
import type { PredictedRun } from "../../lib/measure/prediction_errors.ts";
import type { ThroughputReport } from "../../lib/measure/throughput_report.ts";
import { createModel } from "../../lib/models/registry.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";
import { program } from "../spawn.ts";

const { run: bench, close } = program("bench/main.ts");
after(close);
const folder = mkdtempSync(join(tmpdir(), "twobp-agreement-"));
after(() => rmSync(folder, { recursive: true }));

test("bench agreement compares real and virtual devices on schedules of several placements, and both with what is predicted", async () => {
  const args = ["--model", "llama-tiny", "--devices", "2", "--schedules", "zb-v,naive"];
  const { code, stdout, stderr } = await bench("agreement", ...args, "--repeats", "1", "--samples", "1", "--json", "-");
  assert.equal(code, 0, stderr);
  const { schema, runs: [{ rows, real, virtual }], alone, predictions } = JSON.parse(stdout);
  assert.deepEqual([schema, alone], [3, []]);
  assert.deepEqual(rows.map(({ schedule }: { schedule: string }) => schedule), ["zb-v", "naive"]);
  for (const { step, gain } of rows) for (const { ratio } of [...step, gain]) assert.ok(ratio > 0);
  assert.deepEqual(predictions.map((each: { mode: string; devices: number }) => [each.mode, each.devices]), [
    ["real", 2],
    ["virtual", 2],
  ]);
  for (const { step, gain, counted, runs: [{ model, samples, rounds, rows }] } of predictions) {
    assert.deepEqual([step.cases, gain.cases, counted], [4, 2, undefined], "counted work is compared with 1f1b's");
    assert.deepEqual([model, samples, rounds, rows.length], ["llama-tiny", 1, 1, 2]);
  }
  for (const report of [real, virtual] as ThroughputReport[]) {
    assert.ok(report.rows.every(({ predictedMs }) => predictedMs! > 0));
    // Absent on drivers of which no errors are kept.
    for (const { predicted, predictedWithin } of report.gains) {
      assert.equal(predictedWithin, errorBar(predicted, "gain", report));
    }
  }
  assert.match(stderr, /Predictions on 2 virtual devices\n[^]*│ naive +│ [-+]\d+\.\d \/ [-+]\d+\.\d \/ [-+]\d+\.\d/);
});

test("bench agreement --virtual takes virtual devices alone, model after model", async () => {
  const args = ["--virtual", "--devices", "2", "--model", "llama-tiny,mamba-tiny", "--schedules", "1f1b"];
  const { code, stdout, stderr } = await bench("agreement", ...args, "--repeats", "1", "--samples", "1", "--json", "-");
  assert.equal(code, 0, stderr);
  const { runs, alone, predictions: [{ mode, counted, runs: models }] } = JSON.parse(stdout);
  assert.deepEqual([runs.length, alone.length, mode, counted.cases], [0, 2, "virtual", 2]);
  assert.deepEqual(models.map(({ model }: PredictedRun) => model), ["llama-tiny", "mamba-tiny"]);
  assert.match(stderr, /^1 of 2: llama-tiny on 2 virtual devices$/m);
});

test("bench agreement explains bad arguments in one line, with exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["--devices", "1"], /--devices.*It must be a whole number from 2 to 16\.$/],
    [["--model", "llama-tiny,llama"], /--model.*"llama" is not one of llama-tiny, /],
    [["--keep", "--schedules", "naive"], /--keep keeps what all schedules give: leave --schedules out$/],
    [["--devices", "16"], /-tiny has \d+ layers, which cannot be cut into \d+ stages$/],
  ];
  for (const [args, message] of cases) {
    const { code, stderr } = await bench("agreement", ...args);
    const lines = stderr.split("\n").filter((line) => line && !line.startsWith("Warning: maxDynamic"));
    assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
    assert.equal(lines.length, 1, stderr);
    assert.match(lines[0], message);
  }
});

/** A run whose predictions of `naive` are off by `share`. */
const runOf = (model: string, share: number): PredictedRun => ({
  ...{ model, samples: 1, rounds: 3 },
  rows: [{
    ...{ schedule: "naive", microbatches: 1, stepMs: [100, 80], predictedMs: [100 * (1 + share), 80 * (1 + share)] },
    ...{ gain: 1.25, predicted: 1.25, counted: [12, 10] },
  }],
});

test("kept runs are put together: another model's stays, the same one's is replaced, and the table follows", () => {
  const table = join(folder, "kept_errors.ts"), places = { folder, table };
  const kind = { mode: "real", devices: 2, adapter: "llvmpipe: Mesa 25.0.7" } as const;
  assert.equal(keptName(kind), "agreement-real-2-lavapipe.json");
  keepRun(kind, runOf("llama-tiny", 0.5), {}, places);
  keepRun(kind, runOf("bert-tiny", -0.2), {}, places);
  keepRun(kind, runOf("llama-tiny", 0.1), {}, places);
  keepRun({ ...kind, mode: "virtual", devices: 4 }, runOf("llama-tiny", 0), {}, places);
  writeFileSync(join(folder, "agreement-2-llama-tiny-lavapipe.json"), "{}"); // another kind of file
  assert.match(
    readFileSync(join(folder, "agreement.md"), "utf8"),
    /^\| naive \| -20\.0 \/ -20\.0 \/ \+0\.0 \| \+10\.0/m,
  );
  const [real, virtual, ...others] = readFolder(folder);
  assert.deepEqual([real.mode, virtual.mode, virtual.devices, others.length], ["real", "virtual", 4, 0]);
  assert.deepEqual(real.runs.map(({ model }) => model), ["bert-tiny", "llama-tiny"]);
  assert.ok(Math.abs(real.step!.median + 0.05) < 1e-9, "of -0.2, -0.2, 0.1, 0.1");
  assert.equal(real.step!.cases, 4);
  assert.match(
    readFileSync(table, "utf8"),
    /\{\n {4}mode: "real",\n {4}devices: 2,\n {4}driver: "llvmpipe",\n {4}step: \{ median: -0\.05, within: 0\.2, cases: 4 \},\n/,
  );
});

test("the library's table and the page are what the kept files give, of every schedule and of the four tiny models", () => {
  const files = readFolder(keptPlaces.folder);
  assert.equal(readFileSync(keptPlaces.table, "utf8"), tableModule(files));
  assert.equal(readFileSync(join(keptPlaces.folder, "agreement.md"), "utf8"), pageText(files));
  assert.deepEqual(keptErrors.map(({ mode, devices }) => `${mode} ${devices}`), ["real 2", "virtual 2", "virtual 4"]);
  for (const { devices, runs, step, gain, counted } of files) {
    assert.deepEqual(runs.map(({ model }) => model), ["bert-tiny", "llama-tiny", "mamba-tiny", "resnet-tiny"]);
    let cases = 0;
    for (const { model, rows, command, machine } of runs) {
      const { layers } = createModel(model);
      const fit = scheduleNames.filter((name) => generate(name, { devices }).placement.length <= layers.length);
      assert.deepEqual(rows.map(({ schedule }) => schedule), fit);
      assert.ok(command.startsWith("bench agreement") && machine.date > "2026");
      cases += rows.length;
    }
    assert.deepEqual([step!.cases, gain!.cases], [2 * cases, cases]);
    assert.ok(counted!.cases > 0);
  }
});
