/** Who is at work on a pipeline and its devices: calls that would tear each other's values apart are refused. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";

/** What a pipeline is in the middle of. In what is refused, `what` is what was asked for: "its parameters". */
export interface Occupancy {
  /** Throws a `UserError` unless the pipeline and its devices are open, and neither it nor another is in a step on them. */
  expectOpen(what: string): void;
  /** The same, and nothing may be reading its values. */
  expectFree(what: string): void;
  /** Runs a step, alone on all devices. */
  stepping<T>(run: () => Promise<T>): Promise<T>;
  /** Reads values while nothing may change them. Several may read at once. */
  reading<T>(run: () => Promise<T>): Promise<T>;
  /** Whether there is something to close; from then on nothing else goes. */
  close(): boolean;
}

/** Devices that are in a step of whichever pipeline: one that failed would take back what another has allocated meanwhile. */
const inStep = new WeakSet<Device>();

/** The occupancy of a new pipeline on these devices, which must not be in a step of another. */
export function createOccupancy(devices: readonly Device[]): Occupancy {
  let isStepping = false, readings = 0, isClosed = false;
  const expectEnded = (what: string) => {
    if (isStepping) throw new UserError(`The pipeline is in a step: await that before asking for ${what}`);
  };
  const expectFreeDevices = (what: string) => {
    const device = devices.find((each) => inStep.has(each));
    if (device) {
      throw new UserError(`Rank ${device.rank} is in a step of another pipeline: await that before asking for ${what}`);
    }
  };
  const expectDevices = (what: string) => {
    if (devices.some(({ gpu }) => gpu.closed)) {
      throw new UserError(`The devices are closed, asking for ${what} comes too late: open others with openDevices()`);
    }
  };
  const expectUnread = (what: string) => {
    if (readings > 0) throw new UserError(`The pipeline is being read: await that before asking for ${what}`);
  };
  const expectOpen = (what: string) => {
    if (isClosed) throw new UserError(`The pipeline is closed: asking it for ${what} is too late`);
    expectEnded(what);
    expectDevices(what);
    expectFreeDevices(what);
  };
  expectDevices("a pipeline");
  expectFreeDevices("a pipeline");
  return {
    expectOpen,
    expectFree(what) {
      expectOpen(what);
      expectUnread(what);
    },
    async stepping(run) {
      isStepping = true;
      devices.forEach((device) => inStep.add(device));
      try {
        return await run();
      } finally {
        isStepping = false;
        devices.forEach((device) => inStep.delete(device));
      }
    },
    async reading(run) {
      readings++;
      try {
        return await run();
      } finally {
        readings--;
      }
    },
    close() {
      if (isClosed) return false;
      expectEnded("its end");
      expectUnread("its end");
      return isClosed = true;
    },
  };
}
