import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { flags, start } from "../spawn.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-endings-"));
after(() => rmSync(root, { recursive: true, force: true }));
const skip = process.platform === "win32";

function isRunning(pid: number) {
  try {
    process.kill(pid, 0);
    // One that has ended stays listed until somebody asks how.
    return !existsSync("/proc") || !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

async function begin(how: string) {
  const folder = mkdtempSync(join(root, "run-"));
  const { child, done, said } = start("tests/cli/endings_program.ts", [folder, how]);
  const pid = Number(/child (\d+)/.exec(await said("child "))![1]);
  return { child, done, said, pid, folder };
}

async function expectInOrder({ pid, folder }: { pid: number; folder: string }, stderr: string) {
  for (let wait = 0; wait < 100 && isRunning(pid); wait++) await new Promise((later) => setTimeout(later, 10));
  assert.equal(isRunning(pid), false, "the helper process goes on");
  assert.deepEqual(readdirSync(folder), []);
  // Cursor, wrapping, alternate screen, mouse: no setting is changed, so that none has to be put back.
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(stderr, /\x1b\[\?(?!7h)/);
}

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
  test(`${signal} ends a command with code ${code}, its helpers with it, and leaves terminal and files in order`, {
    skip,
  }, async () => {
    const run = await begin("wait");
    process.kill(run.child.pid!, signal);
    const ended = await run.done;
    assert.equal(ended.code, code, ended.stderr);
    await expectInOrder(run, ended.stderr);
    assert.ok(ended.stderr.endsWith("\x1b[2K")); // the shell's prompt has a line of its own
  });
}

test("an exception on the way leaves terminal and files in order too", { skip }, async () => {
  const run = await begin("throw");
  const ended = await run.done;
  assert.equal(ended.code, 1);
  assert.match(ended.stderr, /Error: on the way/);
  await expectInOrder(run, ended.stderr);
});

test("a reader that has seen enough ends a command without a word", { skip }, async () => {
  const run = await begin("print");
  await run.said("more\n");
  run.child.stdout.destroy();
  const ended = await run.done;
  assert.equal(ended.code, 0, ended.stderr);
  assert.doesNotMatch(ended.stderr, /EPIPE|rror/);
  await expectInOrder(run, ended.stderr);
});

test("a full disk behind standard output is told in one line", { skip: !existsSync("/dev/full") }, () => {
  const full = openSync("/dev/full", "w");
  try {
    for (const command of [["show", "1f1b-1", "--devices", "2"], ["show", "1f1b-1", "--csv", "-"], ["--help"]]) {
      const { status, stderr } = spawnSync(
        process.execPath,
        [...flags, "lib/cli/schedule.ts", ...command],
        { stdio: ["ignore", full, "pipe"], encoding: "utf8" },
      );
      assert.match(stderr, /(^|\n)(schedule: )?Cannot write the output: the disk is full\n$/);
      assert.doesNotMatch(stderr, /\n +at /);
      assert.equal(status, 2);
    }
  } finally {
    closeSync(full);
  }
});

test("a Ctrl-C that is asked for does not end the command, the next one does", { skip }, async () => {
  const run = await begin("kept");
  process.kill(run.child.pid!, "SIGINT");
  await run.said("kept");
  process.kill(run.child.pid!, "SIGINT");
  const ended = await run.done;
  assert.equal(ended.code, 130);
  await expectInOrder(run, ended.stderr);
});

test(
  "Ctrl-C in the middle of a measurement ends it with code 130, and no result is half-written",
  { skip },
  async () => {
    const folder = mkdtempSync(join(root, "bench-"));
    const output = join(folder, "out.json");
    const { child, done, said } = start("bench/main.ts", ["--samples", "1", "--json", output]);
    await said("stage"); // the table of stages: devices are open, steps begin
    process.kill(child.pid!, "SIGINT"); // Deno's `child.kill` hides the code
    const { code, stderr } = await done;
    assert.equal(code, 130, stderr);
    assert.deepEqual(readdirSync(folder), []);
  },
);
