/**
 * Whether two devices are two pieces of hardware. WebGPU does not say which card an adapter stands for, so this is found
 * out the hard way: work given to both at once takes as long as for one alone, unless they share.
 */
import type { Device } from "./device.ts";
import { kernel } from "./kernel.ts";

/** 2^16 invocations fill any GPU of today, so that two such kernels cannot run side by side on one. */
const groups = 1024;
const probe = kernel("probe", "spin");
/** Long against a submission (tens of microseconds), short against the patience of whoever opens devices. */
const targetMs = 20;
/** Both at once take 0.5 of the sum of each alone on separate hardware, 1 on shared. */
export const threshold = 0.8;

const turns = 9;

/** Whether two devices share their hardware. Measures for about half a second; the devices must be idle. */
export async function shareHardware(a: Device, b: Device): Promise<boolean> {
  return await timeTogether(a, b) > threshold;
}

/** How long work takes that is given to both at once, as a share of what it takes one after the other: 0.5 at best, 1 where they share. */
export async function timeTogether(a: Device, b: Device): Promise<number> {
  let rounds = 64;
  await timed(rounds, a); // compiles the kernel, which is no measure of its length
  await timed(rounds, b);
  while (Math.min(await timed(rounds, a), await timed(rounds, a)) < targetMs && rounds < 2 ** 24) rounds *= 2;
  const times: Turn[] = [];
  for (let turn = 0; turn < turns; turn++) {
    times.push({ both: await timed(rounds, a, b), first: await timed(rounds, a), second: await timed(rounds, b) });
  }
  return shareOfTimes(times);
}

/** Milliseconds of the same work given to both devices at once, and to each alone. */
interface Turn {
  readonly both: number;
  readonly first: number;
  readonly second: number;
}

/** Whatever else a machine does only ever adds to a time: the shortest of several is what the hardware takes. */
export function shareOfTimes(times: readonly Turn[]): number {
  const shortest = (name: keyof Turn) => Math.min(...times.map((turn) => turn[name]));
  return shortest("both") / (shortest("first") + shortest("second"));
}

async function timed(rounds: number, ...devices: Device[]): Promise<number> {
  const outputs = devices.map((device) => device.allocate(groups * 64 * 4, "workspace"));
  const start = performance.now();
  devices.forEach((device, index) => {
    const view = { storage: outputs[index], offset: 0, bytes: groups * 64 * 4 };
    device.dispatch(probe, { rounds }, [view], [groups]);
    device.submit();
  });
  await Promise.all(devices.map((device) => device.idle()));
  const time = performance.now() - start;
  devices.forEach((device, index) => device.pool.release(outputs[index]));
  return time;
}
