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

/** Odd, so that one of them is the median. */
const turns = 5;

/** Whether two devices share their hardware. Measures for about half a second; the devices must be idle. */
export async function shareHardware(a: Device, b: Device): Promise<boolean> {
  return await timeTogether(a, b) > threshold;
}

/** How long work takes that is given to both at once, as a share of what it takes one after the other: 0.5 at best, 1 where they share. */
export async function timeTogether(a: Device, b: Device): Promise<number> {
  let rounds = 64;
  while (await timed(rounds, a) < targetMs && rounds < 2 ** 24) rounds *= 2;
  await timed(rounds, b);
  // By turns: a machine that does something else meanwhile slows what is compared alike.
  const ratios: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const both = await timed(rounds, a, b);
    ratios.push(both / (await timed(rounds, a) + await timed(rounds, b)));
  }
  return ratios.sort((x, y) => x - y)[(turns - 1) / 2];
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
