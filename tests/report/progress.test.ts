import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { progress, type ProgressLine } from "../../lib/report/progress.ts";

/** What `body` writes on standard error, as if that were a terminal of `columns`, or a file. */
function written(columns: number | undefined, body: () => void): string {
  const { stderr } = process;
  const before = { write: stderr.write, isTTY: stderr.isTTY, columns: stderr.columns };
  let text = "";
  Object.defineProperty(stderr, "isTTY", { configurable: true, value: columns !== undefined });
  Object.defineProperty(stderr, "columns", { configurable: true, value: columns });
  stderr.write = ((chunk: string) => (text += chunk, true)) as typeof stderr.write;
  try {
    body();
  } finally {
    stderr.write = before.write;
    Object.defineProperty(stderr, "isTTY", { configurable: true, value: before.isTTY });
    Object.defineProperty(stderr, "columns", { configurable: true, value: before.columns });
  }
  return text;
}

/** Four steps. */
function run(bar: ProgressLine) {
  for (let step = 1; step <= 4; step++) bar.step(`loss ${step}`);
  bar.done();
}

test("in a terminal progress is one line with a bar, which is taken away at the end", () => {
  const text = written(100, () => run(progress(4)));
  assert.match(text, /-{30} 0 of 4 steps/);
  assert.match(text, /={30} 4 of 4 steps, 0 s left, loss 4/);
  assert.ok(text.endsWith("\x1b[2K"), "the line is empty at the end");
  assert.ok(!text.includes("\n"), "it stays one line");
});

test("without a terminal progress is plain lines, the last of which says what came to an end", () => {
  const lines = written(undefined, () => run(progress(4, "rows"))).trim().split("\n");
  assert.match(lines[0], /^-{30} 0 of 4 rows/);
  assert.match(lines[lines.length - 1], /^={30} 4 of 4 rows, 0 s left, loss 4$/);
});

test("what is done can be said as a number", () => {
  const text = written(undefined, () => {
    const bar = progress(1000, "candidates");
    bar.to(200, "best 27");
    bar.done();
  });
  assert.match(text, /={6}-{24} 200 of 1000 candidates, .*, best 27\n$/);
});

test("what was done before is not timed", () => {
  const text = written(undefined, () => {
    const bar = progress(1000, "updates", 900);
    bar.to(901);
    bar.done();
  });
  assert.match(text, /^={27}-{3} 900 of 1000 updates, \? left\n/);
});
