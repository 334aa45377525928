/** Devices of which each process of a job opens its own, so that together they run one pipeline. */
import { availableParallelism, cpus } from "node:os";
import { reasonOf, UserError } from "../errors.ts";
import { type DeviceSet, openPlaced } from "../gpu/devices.ts";
import type { Driver } from "../gpu/driver.ts";
import { anything, expectFields, flag, optional, positive, type Rules } from "../rules.ts";
import { createLead } from "./lead.ts";
import { type Job, joinJob, together } from "./transports/mpi/job.ts";
import { overMpi } from "./transports/mpi/transport.ts";
import type { WorldSet } from "./world.ts";

/** The devices of this process, and what connects them with those of the others. */
export interface ProcessSet extends WorldSet {
  /** Which process of the job this is, from 0. */
  readonly process: number;
  /** How many processes there are. */
  readonly processes: number;
  /** The MPI library that carries the messages, with its version. */
  readonly library: string;
}

/** How a process opens its devices. */
export interface WorldOptions {
  /** How many ranks this process runs, 1 by default: the processes' ranks follow one another in the order of the processes. */
  readonly devices?: number;
  /** As for `openDevices`. */
  readonly driver?: Driver;
  /**
   * Whether all other processes are workers, `deno task worker`, which make and join what this one, the first, calls: a notebook, or
   * another program that is one process. Not by default: every process makes the same calls.
   */
  readonly workers?: boolean;
}

const rules: Rules<WorldOptions> = { devices: optional(positive), driver: anything, workers: optional(flag) };

/** What a process is among those of its job: one that calls what all call, the one that workers follow, or a worker. */
type Role = "equal" | "first" | "worker";

/**
 * Opens this process's devices of a pipeline whose ranks are in several processes, on one machine or on many, started by
 * `mpirun`, `mpiexec` or `srun`. Each process calls it, and gives the set to `createPipeline`, which makes one pipeline of all devices
 * of all processes. From then on every call of the pipeline is made by all processes alike: the same schedule, the whole batch, of which
 * each takes its part; and each gets the whole result. A process takes a GPU, or a core of a software driver, that no other of its
 * machine takes.
 *
 * MPI is whichever library fits the launcher: Open MPI, MPICH or one compatible with it, or one with MPI 5's standard ABI; the
 * environment variable `TWOBP_MPI` may give its path. A process belongs to its job until it ends, and ends when all others do.
 *
 * @throws {UserError} In all processes alike, when no launcher has started this process, when launcher and library are of
 * different MPIs, or where a process has no such device; the message says whose. Of workers at a second call.
 *
 * ```ts ignore
 * // mpirun -n 2 deno run -A train.ts
 * import { adamw, createModel, createPipeline, generate, textSource, twoStage } from "twobp";
 * import { openWorld } from "twobp/runtime";
 *
 * const set = await openWorld();
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const schedule = twoStage(generate("1f1b-1", { devices: set.world.size }));
 * const { loss } = await pipeline.step(schedule, source.next(4));
 * if (set.process === 0) console.log(loss, set.library);
 * pipeline.close();
 * set.close();
 * ```
 */
export async function openWorld(options: WorldOptions = {}): Promise<ProcessSet> {
  expectFields("openWorld", options, rules);
  return (await openAs(options.workers ? "first" : "equal", options)).set;
}

/** What has become of the workers of this process, which answer once in its life; undefined before it has asked for them. */
let workers: "open" | "over" | undefined;

/** The same, for a process of this role, and the job. */
export async function openAs(role: Role, options: WorldOptions): Promise<{ set: ProcessSet; job: Job }> {
  if (role !== "first") return await openPart(role, options);
  if (workers) {
    throw new UserError(
      workers === "open"
        ? "openWorld: this process has its workers already, so go on with the set of the first call"
        : "openWorld: the workers have ended with the set of the first call, so start the job again",
    );
  }
  workers = "open";
  try {
    const { set, job } = await openPart(role, options);
    const close = () => {
      workers = "over";
      set.close();
    };
    return { set: { ...set, close }, job };
  } catch (error) {
    workers = "over";
    throw error;
  }
}

async function openPart(role: Role, options: WorldOptions): Promise<{ set: ProcessSet; job: Job }> {
  const { devices: count = 1, driver } = options;
  const job = await joinJob(), { rank, members } = job;
  const told = await together(job, { count, role }) as readonly { count: number; role: Role }[];
  expectRoles(told.map(({ role }) => role));
  const counts = told.map(({ count }) => count);
  const placeOf = counts.flatMap((many) => Array.from({ length: many }, (_, at) => at));
  const processOf = counts.flatMap((many, process) => new Array<number>(many).fill(process));
  const sum = (processes: readonly number[]) => processes.reduce((all, process) => all + counts[process], 0);
  const here = [...members.keys()].filter((process) => members[process].host === members[rank].host);
  const neighbours = {
    first: sum([...members.keys()].slice(0, rank)),
    before: sum(here.filter((process) => process < rank)),
    all: sum(here),
  };
  let set: DeviceSet | undefined, problem: string | undefined;
  try {
    // Not virtual: devices that take turns would have to be in one process.
    set = await openPlaced(count, { virtual: false, ...driver === undefined ? {} : { driver } }, neighbours);
  } catch (error) {
    problem = reasonOf(error);
  }
  const problems = await together(job, problem) as readonly (string | undefined)[];
  const failed = problems.findIndex((each) => each !== undefined);
  if (!set || failed >= 0) {
    set?.close();
    throw new UserError(`Process ${failed} on ${members[failed].host}: ${problems[failed]}`);
  }
  const peers = Array.from({ length: count }, (_, at) => neighbours.first + at);
  const notice = set.devices[0].gpu.info.software ? coresNotice(neighbours.all) : undefined;
  const lead = role === "first" ? createLead(job) : undefined;
  const own = set;
  const world: ProcessSet = {
    ...set,
    ...notice === undefined ? {} : { notice },
    world: {
      size: processOf.length,
      peers,
      transport: "mpi",
      library: job.mpi.version,
      connect: overMpi(job, { processOf, placeOf, most: Math.max(...counts) }, peers),
      ...lead ? { lead } : {},
      exchange: lead
        ? () => Promise.reject(new UserError("Workers do not measure: let all processes run the measurement alike"))
        : (own) => together(job, own),
    },
    process: rank,
    processes: job.size,
    library: job.mpi.version,
    close() {
      lead?.end();
      own.close();
    },
  };
  return { set: world, job };
}

/** @throws {UserError} In all processes, where some would wait for orders that nobody gives. */
function expectRoles(roles: readonly Role[]): void {
  const [first, ...others] = roles;
  const right = first === "first" ? "worker" : "equal";
  if (first !== "worker" && others.every((role) => role === right)) return;
  const is = { equal: "calls openWorld()", first: "calls openWorld({ workers: true })", worker: "is a worker" };
  throw new UserError(
    `With workers process 0 must call openWorld({ workers: true }), and all others must be \`deno task worker\`: ${
      roles.map((role, at) => `process ${at} ${is[role]}`).join(", ")
    }`,
  );
}

/** What is to be said where ranks on a software driver have fewer cores than they need. */
function coresNotice(ranks: number): string | undefined {
  const mine = availableParallelism(), all = cpus().length;
  if (mine < all) {
    return `The launcher holds each process to ${mine} of ${all} cores, where its device's threads and its own want more: ` +
      "mpirun --bind-to none, or srun --cpu-bind=none, does not";
  }
  return all < ranks ? `${ranks} ranks of a software driver on ${all} cores: their times say little` : undefined;
}
