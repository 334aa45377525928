import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Growth, slope } from "../../lib/measure/growth.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

function bench(...args: string[]) {
  return spawnSync(process.execPath, ["run", "-A", "--no-check", "bench/main.ts", "memory", ...args], {
    cwd: root,
    encoding: "utf8",
    timeout: 300_000, // other tests may run beside it
  });
}

test("bench memory --steps prints a line each tenth of the steps, and no bytes in use, reserved or buffers are added", () => {
  const { status, stdout, stderr } = bench("--model", "resnet-tiny", "--steps", "20", "--json", "-");
  assert.equal(status, 0, stderr);
  const { steps, samples, schedule, twoStage, rows, slopes } = JSON.parse(stdout) as Growth & Record<string, unknown>;
  assert.deepEqual([steps, samples, schedule, twoStage], [20, 1, "1f1b-1", true]);
  assert.deepEqual(rows.map(({ step }) => step), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
  for (const { inUse, reserved, buffers } of rows) assert.ok(inUse > 0 && reserved > inUse && buffers > 0);
  assert.deepEqual([slopes.inUse, slopes.reserved, slopes.buffers], [0, 0, 0]);
  assert.match(stderr, /^ +20 +\d+\.\d\d +\d+\.\d\d +\d+ +\d+\.\d\d +\d+\.\d\d$/m);
});

test("bench memory --steps does not go with --predict: one line, exit code 2", () => {
  const { status, stderr } = bench("--steps", "100", "--predict");
  assert.equal(status, 2);
  assert.match(stderr, /^[^\n]*--steps[^\n]*\n$/);
});

test("slope() is that of the line of least squares", () => {
  assert.equal(slope([[1, 5], [2, 7], [3, 9]]), 2);
  assert.ok(Math.abs(slope([[0, 0], [1, 1], [2, 1]]) - 0.5) < 1e-12);
  assert.equal(slope([[1, 5]]), 0);
});
