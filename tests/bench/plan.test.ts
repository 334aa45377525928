import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

function bench(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["run", "-A", "--no-check", "bench/main.ts", "plan", ...args],
    { cwd: root, encoding: "utf8", timeout: 300_000 },
  );
  return { status, stdout, stderr };
}

test("bench plan measures plans beside equal work with the best schedule and with plain 1F1B, step by step in turns", () => {
  const { status, stdout, stderr } = bench(..."--models resnet-tiny --samples 2 --repeats 7 --json -".split(" "));
  assert.equal(status, 0, stderr);
  const { mode, devices, microbatches, rows: [row] } = JSON.parse(stdout);
  assert.deepEqual([mode, devices, microbatches, row.model.name], ["real", 2, 4, "resnet-tiny"]);
  assert.equal(row.plain.schedule, "1f1b");
  for (const name of ["plan", "best", "plain"]) {
    assert.equal(row.stepMs[name].length, 7);
    assert.ok(row.stepMs[name].every((ms: number) => ms > 0));
  }
  for (const over of ["best", "plain"]) {
    const ratios = row.stepMs.plan.map((ms: number, round: number) => row.stepMs[over][round] / ms);
    const sorted = [...ratios].sort((a, b) => a - b);
    assert.ok(Math.abs(row.measured[over].gain / sorted[3] - 1) < 1e-3);
    const [low, high] = row.measured[over].interval;
    assert.ok(low <= row.measured[over].gain && row.measured[over].gain <= high);
  }
});

test("bench plan --predict runs nothing: layers add up to the model, and no plan is slower than equal work", () => {
  const { status, stdout, stderr } = bench(..."--models llama-tiny --devices 3 --predict --json -".split(" "));
  assert.equal(status, 0, stderr);
  const { mode, rows: [{ plan, best, predicted, measured }] } = JSON.parse(stdout);
  assert.equal(mode, "simulated");
  assert.equal(measured, undefined);
  for (const { layers } of [plan, best]) assert.equal(layers.reduce((sum: number, each: number) => sum + each, 0), 10);
  assert.ok(predicted.best >= 1 && predicted.plain > predicted.best);
});
