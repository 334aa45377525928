/** The first process of a job, which prints, saves and is asked for batches, is killed: the others end, and the next start goes on. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { isAlive, launch, namesRank, sayingWho, startJob } from "../../.ci/killed_job.ts";
import { isEqual, trainIn, valuesOf } from "../../.ci/killed_training.ts";
import { codeOfAll } from "../../lib/cli/with_devices.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";

const steps = 15, boundMs = 10_000;

function installed(launcher: string, count: number) {
  try {
    return launch(launcher, count);
  } catch {
    return undefined;
  }
}

for (const [name, launcher] of [["Open MPI", "mpirun.openmpi"], ["MPICH", "mpiexec.hydra"]] as const) {
  for (const count of [2, 4]) {
    const mpi = installed(launcher, count);
    test(
      `the first of ${count} processes of ${name} is killed: all end within ten seconds, one line names it, and the next start resumes`,
      {
        skip: mpi ? false : `${name} is not installed`,
      },
      async (context) => {
        const root = mkdtempSync(join(tmpdir(), "twobp-first-killed-"));
        context.after(() => rmSync(root, { recursive: true }));
        const folder = join(root, "killed"), job = startJob(folder, steps, mpi!.command);
        for (let at = 0; at < count; at++) assert.ok(await job.said(new RegExp(`^process ${at} is \\d+$`, "m")));
        assert.ok(await job.said(/^step 7$/m));
        const pids = [...job.pids().values()], killed = performance.now();
        process.kill(job.pids().get(0)!, "SIGKILL");
        const { code, all } = await job.done;
        while (pids.some(isAlive) && performance.now() - killed < boundMs) {
          await new Promise((later) => setTimeout(later, 20));
        }
        assert.deepEqual(pids.filter(isAlive), [], "nothing is left running");
        assert.ok(performance.now() - killed < boundMs);
        assert.notEqual(code, 0);
        assert.ok(all.split("\n").some((line) => namesRank(line, 0)), all);
        const again = await startJob(folder, steps, mpi!.command).done;
        assert.equal(again.code, 0, again.stderr);
        const [, first] = /^step (\d+)$/m.exec(again.all)!;
        assert.ok(Number(first) >= 3, `the first update is ${first}`); // the checkpoint of 6 may not have been whole
        const set = await openDevices(count, { virtual: false }), whole = join(root, "whole");
        await trainIn(whole, set, steps, () => {});
        set.close();
        assert.ok(isEqual(valuesOf(folder), valuesOf(whole)), "the bits of one process that nobody killed");
      },
    );
  }
}

test(
  "the shell around a process of MPICH names the rank that was killed, and not where somebody has ended it",
  {
    skip: process.platform === "win32",
  },
  () => {
    const ends = [
      ["kill -KILL $$", 137],
      ["kill -SEGV $$", 139],
      ["kill -TERM $$", 143],
      ["exit 130", 130],
      [
        "kill -HUP $$",
        129,
      ],
      ["exit 2", 2],
      ["exit 0", 0],
    ] as const;
    for (const [how, code] of ends) {
      const env = { ...process.env, PMI_RANK: "3" };
      const { status, stderr } = spawnSync("sh", ["-c", sayingWho, "sh", "sh", "-c", how], { env, encoding: "utf8" });
      assert.equal(status, code, how);
      assert.equal(namesRank(stderr, 3), code === 137 || code === 139, `${how}: ${stderr}`);
    }
  },
);

test("a signal that one process of a job has heard is the exit code of all", async () => {
  const told: unknown[] = [];
  const world = (codes: number[]) =>
    ({
      world: {
        exchange(own: unknown) {
          told.push(own);
          return Promise.resolve(codes);
        },
      },
    }) as unknown as DeviceSet;
  assert.equal(await codeOfAll(world([0, 143]), 0), 143);
  assert.equal(await codeOfAll(world([0, 0]), 0), 0);
  assert.deepEqual(told, [0, 0]);
});

test("docs/several_machines.md starts MPICH's processes with the line that these tests do", () => {
  const page = readFileSync(new URL("../../docs/several_machines.md", import.meta.url), "utf8");
  assert.ok(page.includes(sayingWho));
});
