/**
 * The job of several processes that `job_kills.ts` and a test kill: how it is started, and what is known of it. Started by itself it is
 * one of its processes: `killed_job.ts FOLDER UPDATES`.
 */
import { execFileSync, spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { openWorld } from "twobp/runtime";
import { trainIn } from "./killed_training.ts";

/**
 * What docs/several_machines.md starts each process of MPICH with: its mpiexec kills the others at once, before they can say which
 * one is gone, and names a PID, perhaps of one that it killed itself. The shell says the rank before mpiexec hears of it; of a process that
 * somebody has ended, by Ctrl-C, SIGTERM or SIGHUP, it says nothing.
 */
export const sayingWho =
  `trap : HUP INT TERM; "$@" || { c=$?; case $c in 129|130|143) ;; 1[3-9]?) echo "Rank $PMI_RANK was killed by signal $((c - 128))" >&2 ;; esac; exit $c; }`;

/** How a launcher starts so many processes, on as few cores as there are. */
export function launch(launcher: string, count: number) {
  const said = execFileSync(launcher, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const isOpen = /open.?mpi|openrte/i.test(said);
  const [, version] = /(\d+\.\d+\.\d+)/.exec(said) ?? [];
  const how = isOpen ? ["--bind-to", "none", "--oversubscribe"] : ["sh", "-c", sayingWho, "sh"];
  return { library: `${isOpen ? "Open MPI" : "MPICH"} ${version}`, command: [launcher, "-n", `${count}`, ...how] };
}

/** Starts the training as such a job: each process says its number, and the first its updates. */
export function startJob(folder: string, steps: number, command: readonly string[]) {
  const runtime = process.versions.deno ? ["run", "-A", "--no-check"] : ["--import", "tsx"];
  const own = [process.execPath, ...runtime, fileURLToPath(import.meta.url), folder, `${steps}`];
  // As root, Open MPI wants to be told twice.
  const twice = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
  const [launcher, ...before] = command;
  const child = spawn(launcher, [...before, ...own], { env: { ...process.env, ...twice } });
  let stdout = "", stderr = "";
  const heard = new Set<() => void>();
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
    heard.forEach((each) => each());
  });
  child.stderr.on("data", (chunk) => stderr += chunk);
  const done = new Promise<{ code: number | null; stderr: string; all: string }>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => resolve({ code, stderr, all: stdout + stderr }))
  );
  /** Waits until something has been said; false where the job ends before. */
  const said = (what: RegExp) =>
    new Promise<boolean>((resolve) => {
      const look = () => what.test(stdout) && resolve(true);
      heard.add(look);
      look();
      done.then(() => resolve(false), () => resolve(false));
    });
  const pids = () => [...stdout.matchAll(/^process (\d+) is (\d+)$/gm)].map(([, at, pid]) => [Number(at), Number(pid)]);
  return { done, said, pids: () => new Map(pids() as [number, number][]) };
}

/** Whether a line says of this rank that it was killed. */
export function namesRank(line: string, rank: number): boolean {
  return new RegExp(`(rank|process) ${rank} .*(killed|signal 9|gone)`, "i").test(line);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  const [folder, steps] = process.argv.slice(2), set = await openWorld();
  process.stdout.write(`process ${set.process} is ${process.pid}\n`);
  try {
    const say = ({ step }: { step: number }) => set.process === 0 && process.stdout.write(`step ${step}\n`);
    await trainIn(folder, set, Number(steps), say);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(1);
  }
  set.close();
  process.exit(0);
}
