/**
 * Whether a training in several processes survives that one of them is killed: 60 updates with a checkpoint after every third, and
 * of each process in turn one SIGKILL at each of some moments, from before the first update to near the end. Every other process must
 * have ended ten seconds later, with a line that names the rank and no exit code of 0, and the same job started again must end
 * with the bits of one process that nobody killed.
 * `deno run -A --no-check .ci/job_kills.ts [processes, 2 by default] [moments, 10 by default] [launcher, mpirun by default] [a file for the figures, as JSON]`;
 * the launcher is Open MPI's or MPICH's, `mpirun.openmpi` or `mpiexec.hydra` on Debian. Not on Windows.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { openDevices } from "twobp";
import { openOutputs } from "../lib/cli/outputs.ts";
import { median } from "../lib/measure/statistics.ts";
import { generator } from "../lib/random.ts";
import { lastWhole } from "../lib/training/checkpoint_folder.ts";
import { isAlive, launch, namesRank, startJob } from "./killed_job.ts";
import { every, isEqual, trainIn, valuesOf } from "./killed_training.ts";

const steps = 60, boundMs = 10_000;

async function kills(count: number, moments: number, launcher: string, json?: string) {
  const out = openOutputs(json === undefined ? {} : { json });
  const root = mkdtempSync(join(tmpdir(), "twobp-kills-")), random = generator("job kills");
  const { library, command } = launch(launcher, count);
  const wrong: string[] = [], rows: { ms: number }[] = [];
  const set = await openDevices(count, { virtual: false }), { adapter } = set;
  const whole = join(root, "whole");
  await trainIn(whole, set, steps, () => {});
  set.close();
  const bits = valuesOf(whole);
  try {
    for (let moment = 0; moment < moments; moment++) {
      for (let victim = 0; victim < count; victim++) {
        const folder = join(root, `killed-${moment}-${victim}`), name = `process ${victim} at moment ${moment}`;
        const { done, said, pids } = startJob(folder, steps, command);
        const after = Math.floor(moment * steps / moments);
        // Every process is known once it has said its number.
        for (let at = 0; at < count; at++) await said(new RegExp(`^process ${at} is \\d+$`, "m"));
        if (after > 0) await said(new RegExp(`^step ${after}$`, "m"));
        await new Promise((later) => setTimeout(later, 40 * random.uniform()));
        const killed = performance.now(), all = pids();
        process.kill(all.get(victim)!, "SIGKILL");
        const { code, stderr, all: text } = await done;
        // The launcher does not wait for those that it has told to end.
        const left = () => [...all].filter(([, pid]) => isAlive(pid)).map(([at]) => at);
        while (left().length > 0 && performance.now() - killed < boundMs) {
          await new Promise((later) => setTimeout(later, 20));
        }
        const ms = performance.now() - killed;
        const line = text.split("\n").find((each) => namesRank(each, victim));
        if (ms > boundMs) wrong.push(`${name}: the others ended after ${ms} ms`);
        if (left().length > 0) wrong.push(`${name}: left behind are ${left().join(", ")}`);
        if (code === 0) wrong.push(`${name}: exit code 0`);
        if (line === undefined) wrong.push(`${name}: nothing names the rank: ${stderr}`);
        const damaged: string[] = [], from = Number(lastWhole(folder, damaged)?.description.step ?? 0);
        const writing = existsSync(folder) && readdirSync(folder).some((each) => each.endsWith(".tmp"));
        if (damaged.length > 0) wrong.push(`${name}: a checkpoint is not whole: ${damaged.join("; ")}`);
        const again = await startJob(folder, steps, command).done;
        const same = again.code === 0 && isEqual(valuesOf(folder), bits);
        if (!same) wrong.push(`${name}: resumed it ends with code ${again.code} and other bits ${again.stderr}`);
        const row = { moment, victim, ms: Math.round(ms), code, line, writing, resumedFrom: from, same };
        rows.push(row);
        out.say(JSON.stringify(row));
        rmSync(folder, { recursive: true, force: true });
      }
    }
    const all = rows.map(({ ms }) => ms);
    const figures = { medianMs: median(all), longestMs: Math.max(...all), load: loadavg()[0] };
    await out.results(".ci/job_kills.ts", {
      title: "Killed processes of trainings",
      report: { schema: 1, adapter, library, processes: count, steps, every, ...figures, rows, wrong },
      sections: () => [],
    });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
  console.log(wrong.length ? wrong.join("\n") : `All ${rows.length} end as if nobody had killed them.`);
  return wrong.length;
}

const [count = "2", moments = "10", launcher = "mpirun", json] = process.argv.slice(2);
process.exit(await kills(Number(count), Number(moments), launcher, json) > 0 ? 1 : 0);
