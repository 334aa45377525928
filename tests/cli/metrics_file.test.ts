import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openMetrics, readMetrics, upTo } from "../../lib/cli/metrics_file.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-metrics-"));
after(() => rmSync(root, { recursive: true, force: true }));

const update = (step: number) =>
  ({ kind: "update", step, loss: 1 / step, ms: 2, perSecond: 3, shareOfPeak: 0.5 }) as const;

test("each line is in the file as soon as it is written", () => {
  const path = join(root, "lines.jsonl");
  const { write } = openMetrics(path);
  assert.equal(readFileSync(path, "utf8"), "");
  write({ kind: "run", settings: {} });
  write(update(1));
  assert.deepEqual(readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line)), [
    { kind: "run", settings: {} },
    update(1),
  ]);
});

test("a training that goes on keeps the lines up to where it stands, and not the half one of a kill", () => {
  const path = join(root, "resumed.jsonl");
  const { write } = openMetrics(path);
  write({ kind: "run" });
  for (const step of [1, 2, 3]) write(update(step));
  write({ kind: "evaluation", step: 2, loss: 4, isBest: true });
  appendFileSync(path, '{"kind":"update","st');
  const lines = upTo(2, readMetrics(path));
  openMetrics(path, lines).write(update(3));
  assert.deepEqual(readMetrics(path), [
    { kind: "run" },
    update(1),
    update(2),
    { kind: "evaluation", step: 2, loss: 4, isBest: true },
    update(3),
  ]);
});

test("a file of something else is not taken for metrics", () => {
  const path = join(root, "other.txt");
  writeFileSync(path, '{"kind":"run"}\nto be or not to be\n');
  assert.throws(() => readMetrics(path), { name: "UserError", message: /^Line 2 of .*other.txt is none of metrics: / });
  assert.deepEqual(readMetrics(join(root, "missing.jsonl")), []);
});
