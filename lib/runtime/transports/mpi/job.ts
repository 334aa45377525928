/** This process's part in an MPI job: joined once, and left when the process ends. */
import { readlinkSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import process from "node:process";
import { UserError } from "../../../errors.ts";
import type { Mpi } from "./library.ts";
import { loadMpi } from "./library.ts";
import { installedMpi } from "./installed.ts";
import { isCutOff, type Launcher, launcherOf } from "./launcher.ts";
import { createMail, type Mail } from "./mail.ts";

/** What the processes of a job tell each other when they have joined it. */
interface Member {
  readonly host: string;
  /** Processes that see one another by their numbers have the same. */
  readonly space: string;
  readonly pid: number;
  readonly runtime: string;
  readonly library: string;
}

/** A job, as one of its processes has it. */
export interface Job {
  readonly mpi: Mpi;
  readonly mail: Mail;
  /** Which process this is, from 0, and how many there are. */
  readonly rank: number;
  readonly size: number;
  /** What all have said of themselves. */
  readonly members: readonly Member[];
  /** Calls back when another process ends, or is found to have ended, while this one does not; until what it returns is called. */
  onLoss(tell: (process: number, why: string) => void): () => void;
  /** Why this process is going to end, for the others. */
  reason?: string;
}

let joined: Promise<Job> | undefined;

/**
 * The job that this process is part of; joined at the first call.
 *
 * @throws {UserError} Where no launcher has started it, or launcher and library do not fit.
 */
export function joinJob(): Promise<Job> {
  return joined ??= join();
}

/** Turns look so often whether the other processes of this machine are still there, in milliseconds. */
const watchMs = 250;
/** So long a process that ends with an error waits for the others to do so, before it ends the job. */
const patienceMs = 3000;

async function join(): Promise<Job> {
  const launcher = launcherOf();
  if (!launcher) {
    throw new UserError(
      "MPI: no launcher has started this process: start as many as there are ranks, with mpirun -n 2 and what you have just run",
    );
  }
  if (isCutOff()) {
    throw new UserError(
      `MPI: this process is a child of the one that ${launcher.name} has started, and cut off from it: let it start this program ` +
        "itself, or use Open MPI, which children can join",
    );
  }
  const mpi = await loadMpi(launcher, process.env.TWOBP_MPI || undefined, installedMpi());
  const { rank, size } = mpi.init();
  expectTogether(launcher, mpi, size);
  const mail = createMail(mpi, rank);
  const own: Member = {
    host: hostname(),
    space: spaceOf(),
    pid: process.pid,
    runtime: process.versions.bun ? "Bun" : "V8", // records of the one cannot be read by the other
    library: mpi.version,
  };
  const others = Array.from({ length: size }, (_, at) => at).filter((at) => at !== rank);
  const plain = new TextEncoder();
  const members = await introduced(mpi, plain.encode(JSON.stringify(own)), rank, size);
  for (const name of ["library", "runtime"] as const) {
    const at = members.findIndex((each) => each[name] !== members[0][name]);
    if (at < 0) continue;
    throw new UserError(
      `MPI: process 0 runs on ${members[0][name]} and process ${at} on ${members[at][name]}: all must run on the same`,
    );
  }
  const listeners = new Set<(process: number, why: string) => void>();
  const gone = new Map<number, End>();
  const lose = (from: number, end: End, why: string) => {
    if (gone.has(from)) return;
    gone.set(from, end);
    mail.lose(from, new Error(`Process ${from} of the job ${why}`));
    listeners.forEach((tell) => tell(from, why));
  };
  mail.onNews("bye", (from, reason) => lose(from, "left", reason ? `has ended: ${reason}` : "has ended"));
  const watched = others.filter((at) => members[at].space === own.space && isAlive(members[at].pid));
  const watch = () => {
    for (const at of watched) {
      if (!gone.has(at) && !isAlive(members[at].pid)) {
        lose(at, "dead", `is gone: no process ${members[at].pid} on ${members[at].host} any more`);
      }
    }
  };
  const timer = setInterval(watch, watchMs);
  timer.unref();
  const job: Job = {
    mpi,
    mail,
    rank,
    size,
    members,
    onLoss(tell) {
      listeners.add(tell);
      return () => void listeners.delete(tell);
    },
  };
  process.once("exit", (code) => leave(job, { others, gone, watch }, Number(code ?? 0)));
  return job;
}

/**
 * Leaves the job with the process, once all others do. One that ends with an error ends the job where another does not follow: it may
 * be in a wait that nothing ends.
 */
function leave({ mpi, mail, reason, rank, members }: Job, { others, gone, watch }: Company, code: number): void {
  try {
    for (const to of others) mail.tell(to, "bye", code === 0 ? "" : reason ?? `with exit code ${code}`);
    const start = performance.now(), cell = new Int32Array(new SharedArrayBuffer(4));
    while (others.some((at) => !gone.has(at)) || mail.progress.isSending()) {
      mail.progress.turn();
      watch();
      const waited = performance.now() - start;
      const dead = [...gone].find(([, end]) => end === "dead");
      if (dead && rank < Math.min(...others.filter((at) => !gone.has(at)))) {
        const [at] = dead, { pid, host } = members[at];
        writeSync(2, `MPI: process ${at} of the job is gone (${pid} on ${host}): the job ends\n`);
      }
      if (dead || code !== 0 && waited > patienceMs) return mpi.abort(code || 1);
      Atomics.wait(cell, 0, 0, Math.min(20, 0.1 + waited / 16));
    }
    mpi.finalize();
  } catch {
    mpi.abort(code || 1);
  }
}

/** How a process has ended: having said so, or not. */
type End = "left" | "dead";

/** The other processes, as one that leaves sees them. */
interface Company {
  readonly others: readonly number[];
  readonly gone: ReadonlyMap<number, End>;
  /** Looks whether they are still there. */
  watch(): void;
}

/** @throws {UserError} Where each process is alone although its launcher started several. */
function expectTogether({ name, size: said, kind }: Launcher, mpi: Mpi, size: number): void {
  if (size === said) return;
  mpi.finalize();
  const remedy = name === "srun"
    ? `ask srun for the interface that this library speaks (srun --mpi=pmix, or --mpi=pmi2 for MPICH; srun --mpi=list says what there is), or start the job with ${
      mpi.kind === "MPICH" ? "MPICH's mpiexec" : "mpirun"
    }`
    : `start the job with the mpiexec of ${mpi.kind ?? "that library"}${
      kind ? `, or install the library of ${kind}` : ""
    }`;
  throw new UserError(
    `MPI: ${name} has started ${said} processes, and this one sees ${size} with ${mpi.version}: ${remedy}`,
  );
}

/** What all processes say of themselves, by rank: in JSON, which every runtime reads. */
async function introduced(mpi: Mpi, own: Uint8Array, rank: number, size: number): Promise<readonly Member[]> {
  const all: Member[] = [];
  const parse = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes)) as Member;
  all[rank] = parse(own);
  let sending = Array.from({ length: size }, (_, to) => to).filter((to) => to !== rank).map((to) =>
    mpi.send(own, to, helloTag)
  );
  while (sending.length > 0 || all.filter(Boolean).length < size) {
    const done = new Set(mpi.testSome(sending).map(({ index }) => index));
    sending = sending.filter((_, index) => !done.has(index));
    const next = mpi.probe(helloTag);
    if (next) {
      const bytes = new Uint8Array(next.bytes);
      mpi.take(bytes, next.source, helloTag);
      all[next.source] = parse(bytes);
    } else await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return all;
}

/** The tag of introductions: before anything else is sent. */
const helloTag = 1;

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM"; // somebody else's, but there
  }
}

/** Where process numbers are valid: the machine, and of a container the container. */
function spaceOf(): string {
  try {
    return `${hostname()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}

let exchanges = 0;

/** What each process says, by its number: all call it, each time alike. */
export async function together({ mail, size }: Job, own: unknown): Promise<readonly unknown[]> {
  const key = `exchange ${exchanges++}`;
  for (let to = 0; to < size; to++) mail.tell(to, key, own);
  return await Promise.all(Array.from({ length: size }, (_, from) => mail.hear(from, key)));
}
