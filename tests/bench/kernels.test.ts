import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import { problemsOf } from "../../lib/measure/calibrate.ts";
import { type KernelsReport, measureKernels } from "../../lib/measure/kernels.ts";
import { createModel } from "../../lib/models/registry.ts";
import { kernelsNotes, kernelsSections, kernelsTable } from "../../lib/report/kernels.ts";
import { program } from "../spawn.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-kernels-"));
after(() => rmSync(folder, { recursive: true }));

const { run, close } = program("bench/main.ts");
after(close);
const bench = (...args: string[]) => run("kernels", ...args);

test("bench kernels times every candidate, names the fastest of each problem, and rates it against the device's peak", async () => {
  const json = join(folder, "kernels.json"), html = join(folder, "kernels.html");
  const files = ["--json", json, "--html", html];
  const { code, stdout, stderr } = await bench(
    "--operations",
    "rmsNorm,swiglu",
    "--samples",
    "1",
    "--repeats",
    "2",
    ...files,
  );
  assert.equal(code, 0, stderr);
  const report: KernelsReport = JSON.parse(readFileSync(json, "utf8"));
  assert.equal(report.schema, 1);
  assert.ok(report.adapter.length > 0 && report.peak.gflops > 0 && report.peak.gigabytes > 0);
  assert.deepEqual(report.dropped, []);
  assert.deepEqual([...new Set(report.rows.map(({ operation }) => operation))].sort(), ["rmsNorm", "swiglu"]);
  for (const shape of new Set(report.rows.map(({ operation, shape }) => `${operation} ${shape}`))) {
    const rows = report.rows.filter((row) => `${row.operation} ${row.shape}` === shape);
    assert.deepEqual(rows.map(({ candidate }) => candidate), ["plain", "vec4", "group"], shape);
    assert.equal(rows.filter(({ chosen }) => chosen).length, 1, shape);
    assert.equal(rows.filter(({ usual }) => usual).length, 1, shape);
    for (const { ms, quartiles, times, rate, unit, shareOfPeak } of rows) {
      assert.ok(
        times!.length >= 1 && times!.length <= 2 && Math.min(...times!) <= ms * 1.0001 &&
          ms <= Math.max(...times!) * 1.0001,
      );
      assert.ok(quartiles[0] <= ms && ms <= quartiles[1] && ms > 0);
      assert.equal(unit, "GB/s");
      assert.ok(Math.abs(rate / report.peak.gigabytes - shareOfPeak) < 1e-9);
    }
  }
  assert.match(stdout, /rmsNorm.*2048x1024.*vec4/);
  assert.match(readFileSync(html, "utf8"), /Share of the device/);
});

test("measureKernels() begins no problem after its time, the first excepted, and says how many are left", async () => {
  const { devices: [device], close } = await openDevices(1);
  after(close);
  const all = await problemsOf(createModel("llama-tiny"), 1, device.gpu);
  const norms = all.filter(({ operation }) => /^(rmsNorm|swiglu)$/.test(operation.name));
  const shapesOf = ({ rows }: KernelsReport) =>
    new Set(rows.map(({ operation, shape }) => `${operation} ${shape}`)).size;
  const short = await measureKernels(device, norms, { rounds: 1, ms: 1e-3 });
  assert.deepEqual([shapesOf(short), short.left], [1, norms.length - 1]);
  assert.deepEqual(kernelsNotes(short).slice(-1), [
    `Not measured, since the time was over: ${norms.length - 1} of ${norms.length} problems.`,
  ]);
  const whole = await measureKernels(device, norms, { rounds: 1, ms: 1e9 });
  assert.deepEqual([shapesOf(whole), "left" in whole], [norms.length, false]);
});

test("measureKernels() drops a problem whose reference fails, says why, and goes on", async () => {
  const { devices: [device], close } = await openDevices(1);
  after(close);
  const [first, second] = (await problemsOf(createModel("llama-tiny"), 1, device.gpu))
    .filter(({ operation }) => /^(rmsNorm|swiglu)$/.test(operation.name));
  const { operation } = first, [reference] = operation.candidates;
  const failing = {
    ...reference,
    record() {
      throw new Error("a buffer too large\nand more");
    },
  };
  const broken = { ...first, operation: { ...operation, candidates: [failing, ...operation.candidates.slice(1)] } };
  const { rows, dropped } = await measureKernels(device, [broken, second], { rounds: 1 });
  assert.deepEqual(dropped.map(({ operation, candidate, reason }) => [operation, candidate, reason]), [
    [operation.name, reference.name, "a buffer too large"],
  ]);
  assert.deepEqual(new Set(rows.map(({ operation }) => operation)), new Set([second.operation.name]));
});

test("bench kernels explains bad arguments in one line with exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["--operations", "nope"], /"nope" is not one of .*matmul/],
    [["--repeats", "0"], /It must be a whole number from 1 to 1000/],
    [["--minutes", "0"], /--minutes.*It must be a number from 0\.01 to 1440\.$/],
    [["--json", join(folder, "no", "folder.json")], /Cannot write/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await bench(...args);
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr.trimEnd(), message);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  }
});

test("the kernel tables say what was chosen by measuring, what by the rule, and what was dropped", () => {
  const row = { operation: "matmul", shape: "4x4x4", dtype: "f32", unit: "GFLOP/s", quartiles: [1, 3] } as const;
  const report: KernelsReport = {
    schema: 1,
    adapter: "a GPU",
    peak: { gflops: 100, gigabytes: 10 },
    rows: [
      { ...row, candidate: "slow", chosen: false, usual: true, ms: 2, rate: 10, shareOfPeak: 0.1 },
      { ...row, candidate: "fast", chosen: true, usual: false, ms: 1, rate: 20, shareOfPeak: 0.2 },
    ],
    dropped: [{ operation: "matmul", shape: "4x4x4", dtype: "f32", candidate: "bad", reason: "wrong by 3" }],
  };
  assert.deepEqual(kernelsTable(report).rows.map((cells) => [cells[3], cells[8], cells[9]]), [
    ["slow", "10 %", "the rule's"],
    ["fast", "20 %", "measured"],
  ]);
  assert.deepEqual(kernelsNotes(report), [
    "Dropped: matmul 4x4x4, bad: wrong by 3.",
    "Measuring beats the rule on 1 of 1 problems, most on matmul 4x4x4: 2.00 times as fast.",
  ]);
  assert.equal(kernelsSections(report).length, 2);
});
