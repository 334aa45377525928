/** A first process whose others are workers: it gets what one process computes, to the bit, and a worker ends with it. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { openDevices } from "../../lib/gpu/devices.ts";
import { calls } from "./calls.ts";
import { trainings } from "./trainings.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const deno = [process.execPath, "run", "-A", "--no-check"];

/** What starts processes of unlike programs, where it is installed. */
function find(command: string, words: RegExp, flags: readonly string[]): readonly string[] | undefined {
  try {
    const said = execFileSync(command, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    return words.test(said) ? [command, ...flags] : undefined;
  } catch {
    return undefined;
  }
}

const openMpi = find("mpirun.openmpi", /open.?mpi|openrte/i, ["--bind-to", "none", "--oversubscribe"]);
const mpich = find("mpiexec.hydra", /hydra/i, []);

function run(command: readonly string[]) {
  // As root, Open MPI wants to be told twice.
  const twice = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
  const child = spawn(command[0], command.slice(1), {
    cwd: root,
    env: { ...process.env, ...twice, TWOBP_SCALE: "quick" },
  });
  let stdout = "", stderr = "";
  child.stdout.on("data", (chunk) => stdout += chunk);
  child.stderr.on("data", (chunk) => stderr += chunk);
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => resolve({ code, stdout, stderr }))
  );
}

/** A job of a program and a worker. */
const withWorker = (launcher: readonly string[], runtime: readonly string[], ...program: readonly string[]) =>
  run([...launcher, "-n", "1", ...runtime, ...program, ":", "-n", "1", ...runtime, "lib/cli/worker.ts"]);

let expected: Promise<unknown> | undefined;

/** The same calls in this process, once for all. */
function inOneProcess(): Promise<unknown> {
  return expected ??= (async () => {
    const set = await openDevices(2, { virtual: false });
    try {
      return JSON.parse(JSON.stringify(await calls(set)));
    } finally {
      set.close();
    }
  })();
}

for (const [name, launcher, runtime] of [["Open MPI", openMpi, deno], ["MPICH", mpich, deno]] as const) {
  test(
    `a first process with a worker, by ${name}, gets what one process computes, to the bit, and what cannot be told is refused`,
    { skip: launcher ? false : `${name} is not installed` },
    async () => {
      const { code, stdout, stderr } = await withWorker(launcher!, runtime, "tests/mpi/first.ts");
      assert.equal(code, 0, stderr);
      const { results, library } = JSON.parse(stdout);
      assert.match(library, new RegExp(`^${name} \\d`));
      const expected = await inOneProcess() as { wrong: string; broken: string };
      assert.deepEqual(results, expected);
      assert.match(expected.wrong, /^UserError: The batch has 3 inputs/);
      assert.equal(expected.broken, "Error: not heard");
    },
  );
}

test(
  "train() with a worker evaluates, saves, stops and goes on, also with replicas, to the bits of one process, and checkpoints load",
  {
    skip: openMpi ? false : "Open MPI is not installed",
  },
  async (context) => {
    const folder = mkdtempSync(join(tmpdir(), "twobp-worker-"));
    context.after(() => rmSync(folder, { recursive: true }));
    const [here, there] = ["here", "there"].map((name) => join(folder, name));
    const { code, stdout, stderr } = await withWorker(openMpi!, deno, "tests/mpi/trains.ts", there);
    assert.equal(code, 0, stderr);
    const set = await openDevices(2, { virtual: false });
    try {
      const expected = JSON.parse(JSON.stringify(await trainings(set, here)));
      assert.deepEqual(JSON.parse(stdout), expected);
      const [stopped, refused, resumed, sharded] = expected.results;
      assert.deepEqual([stopped.ended, stopped.steps], ["signal", 3]);
      assert.match(refused, /^UserError: train: ROOT\S* has a checkpoint of step 3: say `resume: true`/);
      assert.deepEqual([resumed.resumed, resumed.steps], [3, 6]);
      assert.deepEqual([sharded.resumed, sharded.steps], [6, 8]);
      assert.equal(expected.copied, true);
    } finally {
      set.close();
    }
  },
);

test("a notebook in the first process trains with a worker, draws what both did, and shows what fails there", {
  skip: openMpi ? false : "Open MPI is not installed",
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), "twobp-notebook-"));
  context.after(() => rmSync(folder, { recursive: true }));
  const notebook = ["lib/cli/notebooks.ts", "cluster", "--html", folder];
  const { code, stderr } = await withWorker(openMpi!, deno, ...notebook);
  assert.equal(code, 0, stderr);
  const page = readFileSync(join(folder, "cluster.html"), "utf8");
  assert.match(page, /2 ranks in 2 processes, messages by Open MPI \d/);
  assert.match(page, /Loss \d\.\d+ in the first step, \d\.\d+ in the last/);
  assert.match(page, /RankError: Rank \d failed at \d\w\d: .* exceed the budget/);
  assert.match(page, /The next step of it, a smaller one: \d/);
  assert.equal(page.match(/Plotly\.newPlot\(/g)?.length, 1);
});

test("a worker ends, and says so in a line, where the first process ends without closing its devices", {
  skip: openMpi ? false : "Open MPI is not installed",
}, async () => {
  const { code, stderr } = await withWorker(openMpi!, deno, "tests/mpi/first.ts", "--unclosed");
  assert.notEqual(code, 0);
  assert.match(stderr, /^worker: Process 0 of the job has ended, and had not closed its devices$/m);
});

test(
  "a worker that is killed in the midst of a cell is named by its error and the next one's, and a notebook lives on where mpirun lets it",
  {
    skip: openMpi ? false : "Open MPI is not installed",
  },
  async () => {
    const { stdout, stderr } = await withWorker([...openMpi!, "--enable-recovery"], deno, "tests/mpi/worker_killed.ts");
    assert.match(
      stdout,
      /^cell: (Rank)?Error: (Rank 1|Process 1 of the job) is gone: no process \d+ on .* any more$/m,
      stderr,
    );
    assert.match(
      stdout,
      /^next cell: Error: .*Process 1 of the job is gone: no process \d+ on .*\nstill here$/m,
    );
  },
);

test("a worker beside a first process that has asked for none is refused in both, and so is one without a launcher", {
  skip: openMpi ? false : "Open MPI is not installed",
}, async () => {
  const { code, stderr } = await withWorker(openMpi!, deno, "tests/mpi/program.ts");
  assert.notEqual(code, 0);
  assert.match(
    stderr,
    /With workers process 0 must call openWorld\(\{ workers: true \}\), and all others must be `deno task worker`: process 0 calls openWorld\(\), process 1 is a worker/,
  );
  const alone = await run([...deno, "lib/cli/worker.ts"]);
  assert.equal(alone.code, 2);
  assert.match(alone.stderr, /^worker: no launcher has started this process beside a first one: .*$/m);
});
