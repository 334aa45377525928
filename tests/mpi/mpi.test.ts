/** Ranks in several processes: they compute what one process does, to the bit, and a mistake or a failure ends as it should. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { openDevices } from "../../lib/gpu/devices.ts";
import type { MemoryReport } from "../../lib/measure/memory.ts";
import { runTimeline } from "../../lib/report/run_timeline.ts";
import { transfersOf } from "../../lib/report/timeline.ts";
import { chromeTrace } from "../../lib/report/trace.ts";
import { type ClockReading, clocksBetween, onFirstClock } from "../../lib/runtime/clocks.ts";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { isCutOff, launcherOf } from "../../lib/runtime/transports/mpi/launcher.ts";
import { lower } from "../../lib/schedules/program.ts";
import { loadAndTrain, tracedSchedule, type tracedStep, type trainAndSave, workload, written } from "./workload.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** A launcher of this machine, and how it is called for two processes that may use all cores. */
interface Mpi {
  readonly name: string;
  readonly command: readonly string[];
}

/** Those that are installed, of the two kinds. */
const launchers: readonly Mpi[] = ["mpirun.openmpi", "mpiexec.hydra", "mpirun"].flatMap((command) => {
  try {
    const said = execFileSync(command, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    if (/open.?mpi|openrte/i.test(said)) {
      return [{ name: "Open MPI", command: [command, "-n", "2", "--bind-to", "none", "--oversubscribe"] }];
    }
    return [{ name: "MPICH", command: [command, "-n", "2"] }];
  } catch {
    return [];
  }
});
const find = (name: string) => launchers.find((each) => each.name === name);

const deno = [process.execPath, "run", "-A", "--no-check"], node = ["node", "--import", "tsx"];

/** Bun's own program: npx as a parent keeps from it the file by which MPICH's launcher talks to its processes. */
const bun = launchers.length === 0 ? [] : (() => {
  try {
    const where = ["-y", "--prefer-offline", "-p", "bun@1.4.5", "sh", "-c", "command -v bun"];
    return [
      execFileSync("npx", where, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], timeout: 60_000 }).trim(),
    ];
  } catch {
    return [];
  }
})();

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a job; `onText` is told all that has come so far, to do something to it meanwhile. */
function run(command: readonly string[], env: Record<string, string> = {}, onText?: (text: string) => void) {
  // As root, Open MPI wants to be told twice.
  const twice = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
  const child = spawn(command[0], command.slice(1), { cwd: root, env: { ...process.env, ...twice, ...env } });
  let stdout = "", stderr = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
    onText?.(stdout);
  });
  child.stderr.on("data", (chunk) => stderr += chunk);
  return new Promise<Ended>((resolve, reject) =>
    child.once("error", reject).once(
      "close",
      (code) => resolve({ code, stdout, stderr }),
    )
  );
}

let expected: Promise<readonly unknown[]> | undefined;

/** The same in this process, once for all. */
function inOneProcess(): Promise<readonly unknown[]> {
  return expected ??= (async () => {
    const set = await openDevices(2, { virtual: false });
    try {
      return await workload(set);
    } finally {
      set.close();
    }
  })();
}

/**
 * Both devices read the machine's clock, which what was measured between the processes must be found to agree with: a message
 * that was used before it was sent by more than the error would show it, and no trace has one.
 */
function expectAligned({ before, intervals, after }: Awaited<ReturnType<typeof tracedStep<ClockReading>>>) {
  const schedule = tracedSchedule();
  const exact = clocksBetween(before, after);
  assert.equal(exact.error, 0);
  const apart = ({ peers }: ClockReading) => ({ peers: peers.map((each) => ({ ...each, software: false })) });
  const measured = clocksBetween(apart(before), apart(after));
  assert.ok(measured.error > 0 && measured.error < 1000, `${measured.error} ms`);
  const time = (intervals[0][0].start + intervals[1].at(-1)!.end) / 2;
  const [one, other] = measured.peers.map((clock) => onFirstClock(clock, time));
  assert.ok(
    Math.abs(one - other) <= measured.error,
    `${one} and ${other} are the same moment, within ${measured.error} ms`,
  );
  for (const clocks of [exact, measured]) {
    const timeline = runTimeline(schedule, "real", { intervals, clocks })!;
    const transfers = transfersOf(lower(schedule), timeline.spans);
    assert.equal(transfers.length, 8);
    for (const { from, to } of transfers) {
      assert.ok(to.start >= from.end - clocks.error - 1e-6, `${from.end} to ${to.start}, within ${clocks.error} ms`);
    }
    const { otherData, traceEvents } = JSON.parse(chromeTrace(schedule, timeline));
    assert.equal(otherData.clocks[0].errorMs, clocks.error);
    const tracks = (traceEvents as { ph: string; tid: number }[]).filter(({ ph }) => ph === "X").map(({ tid }) => tid);
    assert.deepEqual([...new Set(tracks)], [0, 1]);
  }
}

/**
 * What two processes saved, this one goes on from, with two ranks, one, or two replicas: as the two have gone on, to the bit where sums
 * over micro-batches and replicas have the same order, else within rounding.
 */
async function expectLoadable(folder: string, checkpoints: Awaited<ReturnType<typeof trainAndSave>>[]) {
  for (const count of [1, 2]) {
    const set = await openDevices(count, { virtual: false });
    try {
      const shapes = count === 1 ? [{ ranks: 1, replicas: 1 }] : written.map(([, shape]) => shape);
      for (const shape of shapes) {
        for (const [at, [name, { replicas }]] of written.entries()) {
          const { losses, parameters } = await loadAndTrain(set, shape, join(folder, name));
          const how = `${name}, read by ${JSON.stringify(shape)}`, expected = checkpoints[at];
          if (shape.replicas === replicas) assert.deepEqual({ losses, parameters }, expected, how);
          losses.forEach((loss, step) => assert.ok(Math.abs(loss - expected.losses[step]) < 1e-4 * loss, how));
          const values = new Map(expected.parameters);
          for (const [parameter, own] of parameters) {
            const off = Math.max(...own.map((value, i) => Math.abs(value - values.get(parameter)![i])));
            assert.ok(off < 1e-4, `${how}: ${parameter} is off by ${off}`);
          }
        }
      }
    } finally {
      set.close();
    }
  }
}

const runs = [["Open MPI", "Deno", deno], ["MPICH", "Node", node], ["Open MPI", "Bun", bun], [
  "MPICH",
  "Bun",
  bun,
]] as const;
for (const [name, runtimeName, runtime] of runs) {
  const mpi = find(name);
  test(
    `two processes of ${name}, in ${runtimeName}, compute what one does, to the bit, and fail and go on alike`,
    {
      skip: !mpi ? `${name} is not installed` : runtime.length === 0 ? `${runtimeName} cannot be had` : false,
    },
    async (context) => {
      const folder = mkdtempSync(join(tmpdir(), "twobp-mpi-"));
      context.after(() => rmSync(folder, { recursive: true }));
      const { code, stdout, stderr } = await run([...mpi!.command, ...runtime, "tests/mpi/program.ts", folder]);
      assert.equal(code, 0, stderr);
      const { results, traced, checkpoints, library, transport, size, peers } = JSON.parse(stdout);
      assert.match(library, new RegExp(`^${name} \\d`));
      assert.deepEqual({ transport, size, peers }, { transport: "mpi", size: 2, peers: [0] });
      const expected = await inOneProcess();
      assert.deepEqual(results, expected);
      for (const each of expected) {
        assert.match(JSON.stringify(each), /Rank \d (of replica 1 )?failed at \dF0: the layer is broken/);
      }
      expectAligned(traced);
      if (mpi === launchers[0]) await expectLoadable(folder, checkpoints); // who carried messages is not in it
    },
  );
}

const openMpi = find("Open MPI"), train = [...deno, "lib/cli/train.ts"];

test("a process that is killed ends the job within ten seconds, with its rank named and no exit code of 0", {
  skip: openMpi ? false : "Open MPI is not installed",
}, async () => {
  let killed = 0;
  const { code, stderr } = await run([...openMpi!.command, ...deno, "tests/mpi/endless.ts"], {}, (text) => {
    const [, pid] = /process 1 is (\d+), and steps\n/.exec(text) ?? [];
    if (pid === undefined || killed) return;
    killed = performance.now();
    process.kill(Number(pid), "SIGKILL");
  });
  assert.ok(killed > 0, stderr);
  const ms = performance.now() - killed;
  assert.ok(ms < 10_000, `${ms} ms`);
  assert.notEqual(code, 0);
  assert.match(stderr, /^.*rank 1 .*(killed|signal 9).*$/im);
});

test(
  "bench agreement sets ranks of several processes beside virtual ones of the first, and says what carried the messages",
  {
    skip: openMpi ? false : "Open MPI is not installed",
  },
  async () => {
    const flags = ["--model", "llama-tiny", "--schedules", "naive", "--repeats", "1", "--samples", "1", "--json", "-"];
    const { code, stdout, stderr } = await run([...openMpi!.command, ...deno, "bench/agreement.ts", ...flags]);
    assert.equal(code, 0, stderr);
    const { runs: [{ devices, transport, library, rows, real, virtual }], alone } = JSON.parse(stdout);
    assert.deepEqual(alone, [], "no virtual devices without real ones beside them");
    assert.deepEqual({ devices, transport }, { devices: 2, transport: "mpi" });
    assert.match(library, /^Open MPI \d/);
    assert.deepEqual([real, virtual].map((each) => [each.mode, each.transport]), [["real", "mpi"], [
      "virtual",
      undefined,
    ]]);
    assert.equal(real.loss.last, virtual.loss.last, "both take the same steps");
    const [{ uncontended: { step: [{ ratio }] } }] = rows, ms = (each: typeof real) => each.rows[0].stepMs.median;
    assert.ok(Math.abs(ratio - ms(virtual) / ms(real)) < 1e-3 * ratio, `${ratio}`);
  },
);

test(
  "bench memory measures both replicas of a job of two processes, as predicted, and train refuses a budget below that",
  {
    skip: openMpi ? false : "Open MPI is not installed",
  },
  async () => {
    const flags = [
      "--devices",
      "4",
      "--replicas",
      "2",
      "--schedules",
      "1f1b-1",
      "--policies",
      "fill",
      "--samples",
      "1",
    ];
    const command = [...openMpi!.command, ...deno, "bench/memory.ts", ...flags, "--shard-optimizer", "--json", "-"];
    const { code, stdout, stderr } = await run(command);
    assert.equal(code, 0, stderr);
    const { transport, replicas, rows } = JSON.parse(stdout) as MemoryReport;
    assert.deepEqual({ transport, replicas }, { transport: "mpi", replicas: 2 });
    for (const { devices } of rows) {
      assert.deepEqual(devices.map(({ replica, rank }) => [replica, rank]), [[0, 0], [0, 1], [1, 0], [1, 1]]);
      for (const { predicted, measured, predictedPeak, measuredPeak } of devices) {
        assert.deepEqual({ ...measured, transfer: 0 }, { ...predicted, transfer: 0 });
        assert.ok(Math.abs(predictedPeak / measuredPeak! - 1) <= 0.01, `${predictedPeak} against ${measuredPeak}`);
      }
    }
    const most = Math.max(...rows[0].devices.map(({ predictedPeak }) => predictedPeak)) / 2 ** 20;
    const small = ["--devices", "4", "--replicas", "2", "--samples", "1", "--steps", "1", "--shard-optimizer"];
    const refused = await run([...openMpi!.command, ...train, ...small, "--budget", `${(most - 0.2).toFixed(2)}MiB`]);
    assert.equal(refused.code, 2, refused.stderr);
    assert.match(
      refused.stderr,
      /^train: --budget \S+ MiB: an update needs \S+ MiB on rank \d of replica \d; give fewer/m,
    );
  },
);

test("a mistake that all processes make is said once, with exit code 2", {
  skip: openMpi ? false : "Open MPI is not installed",
}, async () => {
  const { code, stderr } = await run([...openMpi!.command, ...train, "--devices", "3"]);
  assert.equal(code, 2, stderr);
  const said = stderr.split("\n").filter((line) => line.startsWith("train: "));
  assert.deepEqual(said, [
    "train: 3 devices cannot be shared out among 2 processes: give --devices 2 or a multiple of it, or start 3 processes",
  ]);
});

test("a launcher of one MPI and a library of another are refused in one line, and so is no launcher at all", {
  skip: openMpi && find("MPICH") ? false : "Open MPI and MPICH are not both installed",
}, async () => {
  const mixed = await run([...openMpi!.command, ...train], { TWOBP_MPI: "libmpich.so.12" });
  assert.equal(mixed.code, 2);
  const said = mixed.stderr.split("\n").filter((line) => line.startsWith("train: "));
  assert.equal(said.length, 1, mixed.stderr);
  assert.match(
    said[0],
    /^train: MPI: this process was started by Open MPI's mpirun, and TWOBP_MPI, libmpich\.so\.12, is MPICH [\d.]+: processes of it would each be alone\. Start them with MPICH's own mpiexec, or unset TWOBP_MPI$/,
  );
  await assert.rejects(openWorld(), {
    name: "UserError",
    message:
      "MPI: no launcher has started this process: start as many as there are ranks, with mpirun -n 2 and what you have just run",
  });
});

test("processes that each see themselves alone, as srun makes them without PMIx, are told how to be started", {
  skip: openMpi ? false : "Open MPI is not installed",
}, async () => {
  const environment = { SLURM_STEP_NUM_TASKS: "4", SLURM_PROCID: "0" };
  const { code, stderr } = await run(train, environment);
  assert.equal(code, 2, stderr);
  assert.match(
    stderr,
    /^train: MPI: srun has started 4 processes, and this one sees 1 with (Open MPI|MPICH) [\d.]+: ask srun for .* \(srun --mpi=pmix, .*$/m,
  );
});

test("a child that MPICH's launcher has not started, and cannot hear, is known by the connection that it lacks", {
  skip: process.platform === "linux" ? false : "only Linux says what files a process has",
}, async () => {
  assert.deepEqual([isCutOff({}), isCutOff({ PMI_FD: "997" })], [false, true]);
  const env = { PMI_SIZE: "2", PMI_RANK: "0", PMI_FD: "997" };
  const { code, stderr } = await run(train, env);
  assert.equal(code, 2, stderr);
  assert.match(
    stderr,
    /^train: MPI: this process is a child of the one that MPICH's mpiexec has started, and cut off/m,
  );
});

test("who started a process is read from its environment: Open MPI, MPICH, srun with either, or nobody", () => {
  const openMpi = { OMPI_COMM_WORLD_SIZE: "2", OMPI_COMM_WORLD_RANK: "1", PMIX_RANK: "1" };
  assert.deepEqual(launcherOf(openMpi), { name: "Open MPI's mpirun", kind: "Open MPI", size: 2, rank: 1 });
  const hydra = { PMI_SIZE: "3", PMI_RANK: "0", PMI_FD: "8" };
  assert.deepEqual(launcherOf(hydra), { name: "MPICH's mpiexec", kind: "MPICH", size: 3, rank: 0 });
  const step = { SLURM_STEP_NUM_TASKS: "4", SLURM_NTASKS: "4", SLURM_PROCID: "3" };
  assert.deepEqual(launcherOf(step), { name: "srun", size: 4, rank: 3 });
  assert.deepEqual(launcherOf({ ...step, PMI_SIZE: "4", PMI_RANK: "3" }), { name: "srun", size: 4, rank: 3 });
  const withinBatch = { ...step, SLURM_STEP_NUM_TASKS: "1", SLURM_PROCID: "0" };
  assert.equal(launcherOf({ ...withinBatch, ...hydra })!.name, "MPICH's mpiexec", "mpiexec in a batch script");
  assert.equal(launcherOf({ SLURM_NTASKS: "4", SLURM_PROCID: "0" }), undefined, "the batch script itself");
  assert.equal(launcherOf({}), undefined);
});
