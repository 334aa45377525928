/** Opens the devices of a pipeline, one a rank, and says whether they are real or virtual. */
import { availableParallelism } from "node:os";
import { UserError } from "../errors.ts";
import { anything, expectFields } from "../rules.ts";
import { Device } from "./device.ts";
import { type Driver, expectDriver, forcedDriver, listCards, openAdapter } from "./driver.ts";
import { Gpu } from "./gpu.ts";
import { shareHardware } from "./separate.ts";

/** *Real*: each rank has a GPU, or a core of a software driver, of its own. *Virtual*: all ranks share one GPU, one action at a time. */
export type Mode = "real" | "virtual";

/** The devices of a pipeline, rank by rank. */
export interface DeviceSet {
  /** Whether every rank has a device of its own. */
  readonly mode: Mode;
  /** One device a rank, rank 0 first. */
  readonly devices: readonly Device[];
  /** What the ranks run on, for tables: the adapter's description. */
  readonly adapter: string;
  /** Which kind of driver serves them. */
  readonly driver: Driver;
  /** Why the devices are virtual although that was not asked for, if so. */
  readonly notice?: string;
  /**
   * Frees everything on the GPUs; a second time does nothing. What is asked of the devices afterwards throws a
   * {@link UserError}, and what is under way fails with one. A process with no open devices ends by itself.
   */
  close(): void;
}

/** More than any schedule here is for; a number with a slip in it must not fill the memory with devices. */
const mostDevices = 1024;

/**
 * Opens `count` devices. Real ones where there are that many GPUs, or where a software driver has a core for each;
 * else, and whenever `virtual` is set, virtual ones on one GPU: two ranks never share a GPU unsaid. `virtual: false` insists
 * on real ones; on a software driver they may then outnumber the cores, which is good for tests and not for timing.
 * `driver` is by default what the environment variable `TWOBP_DRIVER` asks for, or else the best there is.
 *
 * @throws {UserError} When count, `virtual` or `driver` is none, or there are no such devices.
 *
 * ```ts
 * import { openDevices } from "twobp";
 * const { devices, mode, adapter, close } = await openDevices(2);
 * console.log(`${devices.length} ${mode} devices on ${adapter}`);
 * close();
 * ```
 */
export function openDevices(
  count: number,
  options: { virtual?: boolean; driver?: Driver } = {},
): Promise<DeviceSet> {
  return openPlaced(count, options);
}

/** Devices that other processes open on the same machine, for the same pipeline. */
export interface Neighbours {
  /** The number of the first device here. */
  readonly first: number;
  /** How many devices of this machine other processes take before. */
  readonly before: number;
  /** How many all processes take of this machine. */
  readonly all: number;
}

/** As {@link openDevices}, for devices of which other processes have more. */
export async function openPlaced(
  count: number,
  options: { virtual?: boolean; driver?: Driver },
  { first, before, all }: Neighbours = { first: 0, before: 0, all: count },
): Promise<DeviceSet> {
  expectFields("openDevices", options, { virtual: anything, driver: anything }); // looked at below
  let { virtual } = options;
  const { driver = forcedDriver() } = options;
  if (!(count >= 1)) throw new UserError(`${count} devices asked for; at least 1 is needed`);
  if (!Number.isInteger(count) || count > mostDevices) {
    throw new UserError(`${count} devices asked for; it must be a whole number from 1 to ${mostDevices}`);
  }
  if (virtual !== undefined && typeof virtual !== "boolean") {
    throw new UserError(`virtual is ${JSON.stringify(virtual)}, but must be true, false or left out`);
  }
  if (driver !== undefined) expectDriver(driver, "driver");
  const gpus = [new Gpu(await openAdapter(first, driver))];
  try {
    const { info } = gpus[0];
    let notice: string | undefined;
    if (!virtual && all > 1) {
      // All devices of Deno's WebGPU in a process are on one adapter, and a software driver's threads belong to that.
      const isOne = info.implementation === "deno" && (count > 1 || !info.software);
      const cards = info.software ? [] : listCards(info.vendor);
      const available = isOne ? 1 : info.software ? availableParallelism() : Math.max(1, cards.length);
      const found = isOne
        ? `${all} devices asked for, and Deno's WebGPU has one adapter`
        : `${all} devices asked for, ${available} ${info.software ? "core" : "GPU"}${available === 1 ? "" : "s"} found`;
      if (available < all && virtual === false && !info.software) throw new UserError(found);
      if (available < all && virtual === undefined) {
        virtual = true;
        notice = `${found}: the devices are virtual`;
      } else {
        if (!info.software) gpus.pop()!.close(); // reopened by its address, like the others
        for (let at = gpus.length; at < count; at++) {
          gpus.push(new Gpu(await openAdapter(first + at, info.driver, cards[before + at])));
        }
      }
    }
    const devices = Array.from({ length: count }, (_, at) => new Device(first + at, virtual ? gpus[0] : gpus[at]));
    if (!virtual && !info.software) await expectSeparate(devices);
    return {
      mode: virtual ? "virtual" : "real",
      devices,
      adapter: info.name,
      driver: info.driver,
      ...(notice ? { notice } : {}),
      close() {
        devices.forEach((device) => device.close());
        gpus.forEach((gpu) => gpu.close());
      },
    };
  } catch (error) {
    gpus.forEach((gpu) => gpu.close());
    throw error;
  }
}

/** Cards are told apart by address, but a driver may ignore the address: then all ranks would be on one GPU. */
async function expectSeparate(devices: readonly Device[]) {
  const [first, ...others] = devices;
  for (const other of others) {
    if (await shareHardware(first, other)) {
      throw new UserError(
        `Ranks ${first.rank} and ${other.rank} turn out to share one GPU: ask for virtual devices instead`,
      );
    }
  }
}
