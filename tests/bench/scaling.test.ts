import assert from "node:assert/strict";
import { after, test } from "node:test";
import { closedForm, type ScalingReport } from "../../lib/measure/scaling.ts";
import { program } from "../spawn.ts";

const file = "tests/schedules/fixtures/ZBVZeroBubble.compute_only.csv"; // on four ranks

const { run: bench, close } = program("bench/main.ts");
after(close);

test("bench scaling writes rows and gains that name their devices and mode, with the closed forms beside them", async () => {
  const args = ["--devices", "4,2", "--virtual", "--repeats", "1", "--schedules", "naive,1f1b", "--json", "-"];
  const { code, stdout, stderr } = await bench("scaling", ...args);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(stdout) as ScalingReport;
  assert.deepEqual([report.schema, report.model.name], [1, "llama-deep"]);
  assert.deepEqual(
    report.gains.map(({ devices, mode, schedule }) => [devices, mode, schedule]),
    [[2, "virtual", "naive"], [2, "virtual", "1f1b"], [4, "virtual", "naive"], [4, "virtual", "1f1b"]],
  );
  for (const { devices, schedule, ratios, closedForm: theory } of report.gains) {
    assert.equal(ratios!.length, 1);
    assert.deepEqual(theory, closedForm(schedule, devices));
  }
  for (const { devices, peakBytes, samplesPerSecond, stepMs, microbatches } of report.rows) {
    assert.equal(peakBytes.length, devices);
    assert.ok(Math.abs(samplesPerSecond - 1000 * microbatches / stepMs.median) < 1e-6 * samplesPerSecond);
  }
});

test("bench scaling takes a V and a CSV file, which is for as many ranks as it has rows", async () => {
  const args = ["--schedules", `naive,zb-v,${file}`, "--devices", "2,4", "--virtual", "--repeats", "1", "--json", "-"];
  const { code, stdout, stderr } = await bench("scaling", ...args);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(stdout) as ScalingReport;
  const own = "ZBVZeroBubble.compute_only";
  assert.deepEqual(report.gains.map(({ devices, schedule }) => [devices, schedule]), [
    [2, "naive"],
    [2, "zb-v"],
    [4, "naive"],
    [4, "zb-v"],
    [4, own],
  ]);
  assert.equal(report.rows.length, 10);
  assert.match(stderr, /zb-v, ZBVZeroBubble\.compute_only are split by themselves/);
});

test("bench scaling takes the largest model that fits, and says why not a larger one", async () => {
  const args = ["--model", "largest", "--memory", "0.06", "--devices", "2", "--virtual", "--schedules", "naive"];
  const { code, stdout, stderr } = await bench("scaling", ...args, "--repeats", "1");
  assert.equal(code, 0, stderr);
  assert.match(
    stdout,
    /llama-7b.*\n[^]*llama-small does not fit: it takes .* GiB in all or more, there are 0\.06 GiB\.\n/,
  );
  assert.match(stdout, /llama-tiny fits: it takes .* GiB in all[^]*\nllama-tiny \(/);
});

test("bench scaling explains bad arguments in one line, with exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["scaling", "--devices", "2,2"], /--devices.*2 is there twice\.$/],
    [["scaling", "--devices", "2,x"], /--devices.*It must be a whole number from 1 to 64\.$/],
    [["scaling", "--devices", "64"], /llama-deep has 34 layers, which cannot be cut into 64 stages$/],
    [
      ["scaling", "--schedules", "zb-w"],
      /Unknown schedule "zb-w", and no file of that name; the schedules are naive, /,
    ],
    [
      ["scaling", "--schedules", "zb-v", "--devices", "32"],
      /llama-deep has 34 layers, which cannot be cut into 64 stages$/,
    ],
    [["scaling", "--schedules", file, "--devices", "2"], /is for 4 ranks, which --devices does not name$/],
    [["scaling", "--schedules", file, "--devices", "2,4"], /--devices names 2 ranks, for which no schedule is given$/],
    [
      ["scaling", "--model", "largest", "--memory", "0.001", "--devices", "2", "--virtual"],
      /None of llama-7b, .* fits into 0\.00 GiB on 2 ranks$/,
    ],
  ];
  for (const [args, message] of cases) {
    const { code, stderr } = await bench(...args);
    const lines = stderr.split("\n").filter((line) => line && !line.startsWith("Warning: maxDynamic"));
    assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
    assert.equal(lines.length, 1, stderr);
    assert.match(lines[0], message);
  }
});
