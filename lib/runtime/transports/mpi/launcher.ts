/** What the launcher of an MPI job has told this process, by environment variables. */
import { readFileSync, readlinkSync } from "node:fs";
import process from "node:process";
import type { Kind } from "./abi.ts";

/** How this process was started. */
export interface Launcher {
  /** In words: "Open MPI's mpirun". */
  readonly name: string;
  /** Whose processes it can start; undefined where that depends on how it was called. */
  readonly kind?: Kind;
  /** How many processes it says there are. */
  readonly size: number;
  /** Which one this is, from 0. */
  readonly rank: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Who started this process, or undefined where no launcher of MPI jobs did. */
export function launcherOf(environment: Environment = process.env): Launcher | undefined {
  const read = (size: string, rank: string) => {
    const numbers = [environment[size], environment[rank]].map((text) => /^\d+$/.test(text ?? "") ? Number(text) : NaN);
    return numbers.every((each) => Number.isSafeInteger(each)) ? { size: numbers[0], rank: numbers[1] } : undefined;
  };
  const openMpi = read("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK");
  if (openMpi) return { name: "Open MPI's mpirun", kind: "Open MPI", ...openMpi };
  // A job step: in a batch script itself, which `sbatch` starts once, there is no such size of more than 1.
  const slurm = environment.SLURM_STEP_NUM_TASKS === undefined
    ? undefined
    : read("SLURM_STEP_NUM_TASKS", "SLURM_PROCID");
  const pmi = read("PMI_SIZE", "PMI_RANK");
  if (slurm && !(pmi && "PMI_FD" in environment)) return { name: "srun", ...slurm };
  if (pmi) return { name: "MPICH's mpiexec", kind: "MPICH", ...pmi };
  return undefined;
}

/**
 * Whether this process has not inherited the connection by which MPICH's launcher talks to what it starts: it is a child of that, as a
 * kernel is of Jupyter. Without it MPI would wait for ever. Known on Linux alone.
 */
export function isCutOff(environment: Environment = process.env): boolean {
  const { PMI_FD } = environment;
  if (process.platform !== "linux" || !/^\d+$/.test(PMI_FD ?? "")) return false;
  const socketOf = (pid: number | string) => orElse(() => readlinkSync(`/proc/${pid}/fd/${PMI_FD}`), "");
  const own = socketOf("self"), above = orElse(() => readFileSync(`/proc/${process.ppid}/environ`, "utf8"), "");
  // What is there may be a socket of the runtime itself; one that is inherited is the parent's too.
  return !own.startsWith("socket:") || above.split("\0").includes(`PMI_FD=${PMI_FD}`) && socketOf(process.ppid) !== own;
}

function orElse<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Whether this process is one of several, as its launcher says. */
export function isInJob(): boolean {
  return (launcherOf()?.size ?? 1) > 1;
}

/** Which process of its job this is, as its launcher says; 0 without one. */
export function processNumber(): number {
  return launcherOf()?.rank ?? 0;
}
