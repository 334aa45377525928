import { UserError } from "../errors.ts";
import { type DeviceSet, openDevices } from "../gpu/devices.ts";
import { openWorld } from "../runtime/open_world.ts";
import { joinJob } from "../runtime/transports/mpi/job.ts";
import { isInJob } from "../runtime/transports/mpi/launcher.ts";
import { worldOf } from "../runtime/world.ts";

/** How a command wants its devices. */
export interface DeviceWishes {
  readonly virtual?: boolean;
  /** Whether the command can run in several processes, which open some of the devices each, where a launcher has started them. */
  readonly inJob?: boolean;
  /** Copies of the pipeline that the devices are cut into, for messages; 1 by default. */
  readonly replicas?: number;
  /** Whether they are of this process alone, whatever job it is part of. */
  readonly alone?: boolean;
  readonly say: (line: string) => void;
}

/** Opens the devices of a command, says why they are virtual if nobody asked for that, and closes them whatever happens. */
export async function withDevices<T>(
  count: number,
  { virtual, inJob = false, alone = false, replicas = 1, say }: DeviceWishes,
  run: (set: DeviceSet) => Promise<T>,
): Promise<T> {
  const set = isInJob() && !alone
    ? await openOfJob(count, { virtual, inJob, replicas })
    : await openDevices(count, { virtual });
  try {
    if (set.notice) say(`${set.notice}.`);
    return await run(set);
  } finally {
    set.close();
  }
}

/**
 * The code that every process of a command ends with, each having its own: a signal that has ended all may have come to one of them
 * alone, and a launcher gives the code of whichever it likes.
 */
export async function codeOfAll(set: DeviceSet, code: number): Promise<number> {
  const { exchange } = worldOf(set);
  return exchange ? Math.max(...await exchange(code) as readonly number[]) : code;
}

/** The devices of a process of a job: as many in each. */
async function openOfJob(
  count: number,
  { virtual, inJob, replicas }: Pick<DeviceWishes, "virtual" | "inJob"> & { replicas: number },
): Promise<DeviceSet> {
  const { size } = await joinJob();
  if (!inJob) {
    throw new UserError(`This command runs in one process, and a launcher has started ${size}: run it without`);
  }
  if (virtual) {
    throw new UserError("--virtual: devices that take turns are in one process, and a launcher has started several");
  }
  if (count % size > 0) {
    let least = size; // the least number that both divide
    while (least % replicas > 0) least += size;
    throw new UserError(
      `${count} devices cannot be shared out among ${size} processes${
        replicas > 1 ? ` in ${replicas} replicas` : ""
      }: give --devices ${least} or a multiple of it, or start ` +
        `${count} processes`,
    );
  }
  return await openWorld({ devices: count / size });
}
