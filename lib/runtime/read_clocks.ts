/** Looks at the clocks of all devices of a world. */
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { reasonOf, UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import { createTimer } from "../gpu/timing.ts";
import { boundsOf, type ClockBounds, type ClockReading, type ClockSample, type PeerReading } from "./clocks.ts";
import { worldOf } from "./world.ts";

/** Ways there and back, of which the shortest counts. */
const rounds = 24;
/** The first ones wake what sleeps. */
const warmUp = 4;

/**
 * Reads how the clock of each device stands against that of the first process: messages between the processes, and between each and its
 * devices, go there and back some times, and the shortest says most. All processes call it together, between two steps. One reading
 * before the steps that are to be drawn and one behind them make `clocksBetween`; some milliseconds each.
 *
 * @throws {UserError} In all processes, where devices take turns, or one has no timestamps.
 *
 * @example
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, runTimeline, textSource } from "twobp";
 * import { clocksBetween, readClocks } from "twobp/runtime";
 *
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
 * const text = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const schedule = generate("1f1b-1", { devices: 2 });
 * await pipeline.step(schedule, text.next(2)); // the first step compiles kernels
 * if (set.mode === "real") { // virtual devices take turns: their steps are composed
 *   const before = await readClocks(set);
 *   const step = await pipeline.step(schedule, text.next(2));
 *   const clocks = clocksBetween(before, await readClocks(set));
 *   console.log(clocks.error, runTimeline(schedule, set.mode, { ...step, clocks })?.makespan); // milliseconds
 * }
 * pipeline.close();
 * set.close();
 * ```
 */
export async function readClocks(set: DeviceSet): Promise<ClockReading> {
  if (set.mode === "virtual") {
    throw new UserError("readClocks: virtual devices take turns, and have no clocks to compare; open real ones");
  }
  const { peers, lead, exchange: amongAll = alone } = worldOf(set), isFirst = peers[0] === 0;
  const exchange = lead?.clocks() ?? amongAll;
  const processes = await processBounds(exchange, isFirst);
  let devices: readonly ClockBounds[] = [], problem: string | undefined;
  try {
    devices = await Promise.all(set.devices.map(deviceBounds));
  } catch (error) {
    problem = reasonOf(error);
  }
  const software = set.devices.map(({ gpu }) => gpu.info.software);
  const told = await exchange({ devices, software, problem, processes, machine: machine() }) as readonly Told[];
  const failed = told.findIndex((each) => each.problem !== undefined);
  if (failed >= 0) throw new UserError(`readClocks: process ${failed}: ${told[failed].problem}`);
  const [first] = told;
  return {
    peers: told.flatMap((each, process) =>
      each.devices.map((device, at): PeerReading => ({
        device,
        process: first.processes[process],
        machine: each.machine,
        isNear: each.machine === first.machine,
        software: each.software[at],
      }))
    ),
  };
}

/** What a process tells the others. */
interface Told {
  readonly devices: readonly ClockBounds[];
  readonly software: readonly boolean[];
  readonly problem?: string;
  /** Of the first process: the clocks of all, against its own. */
  readonly processes: readonly ClockBounds[];
  readonly machine: string;
}

const alone = (own: unknown): Promise<readonly unknown[]> => Promise.resolve([own]);

/**
 * The clocks of all processes against this one, where it is the first. Each tells its time again and again, the next one when it has heard
 * those of all: so it is told after the first one's last time, and arrives before its next.
 */
async function processBounds(exchange: typeof alone, isFirst: boolean): Promise<ClockBounds[]> {
  const samples: ClockSample[][] = [];
  let sent = performance.now();
  await exchange(sent);
  for (let round = 0; round < rounds; round++) {
    const own = performance.now();
    const times = await exchange(own) as readonly number[];
    const arrived = performance.now();
    if (round >= warmUp) times.forEach((told, process) => (samples[process] ??= []).push({ sent, told, arrived }));
    sent = own;
  }
  if (!isFirst) return [];
  // Its own clock is no message away.
  return samples.map((list, process) => process === 0 ? { at: list[0].told, low: 0, high: 0 } : boundsOf(list));
}

/** A device's clock against that of this process: when an empty pass was over is between its submission and the news of it. */
async function deviceBounds(device: Device): Promise<ClockBounds> {
  const timer = createTimer(device);
  if (!timer) throw new UserError(`${device.gpu.info.name} has no timestamps`);
  const samples: ClockSample[] = [];
  try {
    for (let round = 0; round < rounds; round++) {
      const sent = performance.now();
      device.beginPass(timer.slot(0));
      const [{ end }] = await timer.read(1);
      if (round >= warmUp) samples.push({ sent, told: end, arrived: performance.now() });
    }
  } finally {
    timer.close();
  }
  return boundsOf(samples);
}

/** A name of what has one clock: on Linux the kernel that runs, whatever network or container a process is in. */
function machine(): string {
  try {
    const kernel = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${kernel} ${readlinkSync("/proc/self/ns/time")}`;
  } catch {
    return hostname();
  }
}
