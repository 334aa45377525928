import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { progress, type ProgressLine } from "../../lib/report/progress.ts";

/** What `body` writes on standard error, as if that were a terminal of `columns`, or a file, while the clock goes as it says. */
function written(columns: number | undefined, body: (wait: (ms: number) => void) => void): string {
  const { stderr } = process;
  const before = { write: stderr.write, isTTY: stderr.isTTY, columns: stderr.columns, now: performance.now };
  let text = "", time = 1000;
  Object.defineProperty(stderr, "isTTY", { configurable: true, value: columns !== undefined });
  Object.defineProperty(stderr, "columns", { configurable: true, value: columns });
  stderr.write = ((chunk: string) => (text += chunk, true)) as typeof stderr.write;
  performance.now = () => time;
  try {
    body((ms) => time += ms);
  } finally {
    stderr.write = before.write;
    performance.now = before.now;
    Object.defineProperty(stderr, "isTTY", { configurable: true, value: before.isTTY });
    Object.defineProperty(stderr, "columns", { configurable: true, value: before.columns });
  }
  return text;
}

/** Four steps of five seconds each. */
function run(bar: ProgressLine, wait: (ms: number) => void) {
  for (let step = 1; step <= 4; step++) {
    wait(5000);
    bar.step(`loss ${step}`);
  }
  bar.done();
}

test("in a terminal progress is one line with a bar, which is taken away at the end", () => {
  const lines = written(100, (wait) => run(progress(4), wait)).split("\r\x1b[2K");
  const bar = (filled: number) => "█".repeat(filled) + "░".repeat(30 - filled);
  assert.deepEqual(lines, [
    "",
    `${bar(8)} 1 of 4 steps, 15 s left, loss 1`,
    `${bar(15)} 2 of 4 steps, 10 s left, loss 2`,
    `${bar(23)} 3 of 4 steps, 5 s left, loss 3`,
    `${bar(30)} 4 of 4 steps, loss 4`,
    "",
  ]);
});

test("a line is cut to its terminal, so that it stays one", () => {
  const lines = written(40, (wait) => run(progress(4, "things with a long name"), wait)).split("\r\x1b[2K");
  assert.ok(lines.every((line) => line.length < 40) && lines[1].endsWith("1 of 4 t"), lines[1]);
});

test("without a terminal progress is a plain line every ten seconds", () => {
  const text = written(undefined, (wait) => run(progress(4, "rows"), wait));
  assert.equal(text, "2 of 4 rows, 10 s left, loss 2\n4 of 4 rows, loss 4\n");
});

test("what is done can be said as a number, and long times in minutes and hours", () => {
  const text = written(undefined, (wait) => {
    const bar = progress(1000, "candidates");
    for (const done of [100, 101]) {
      wait(60_000);
      bar.to(done);
    }
    wait(36e5);
    bar.to(200, "best 27");
    bar.done();
  });
  assert.match(text, /^100 of 1000 candidates, 9 min left\n101 .*, 18 min left\n200 of .*, 4\.1 h left, best 27\n$/);
});
