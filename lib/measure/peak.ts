/** The best a device does: arithmetic without memory, and memory without arithmetic. What kernels are held against. */
import type { Device } from "../gpu/device.ts";
import { kernel } from "../gpu/kernel.ts";
import { largestBuffer } from "../gpu/pool.ts";
import { fill, strides } from "../ops/elementwise.ts";
import { empty, release } from "../tensor.ts";
import { type Patience, race } from "./stopwatch.ts";

/** Rates of a device. */
export interface Peak {
  /** f32 multiply-adds in registers, 10^9 floating-point operations a second. Matrix units are another thing. */
  readonly gflops: number;
  /** A copy of 64 MiB, or of the largest buffer where that is less, 10^9 bytes a second, read and written. */
  readonly gigabytes: number;
}

const few = kernel("peak", "multiplyFew"); // 3 chains of vec4f
const many = kernel("peak", "multiplyMany"); // 7
const copy = kernel("peak", "copy");

/** Measures the peak of a device: the best of several rounds of each probe, and of the two that do arithmetic. */
export async function measurePeak(device: Device, patience?: Patience): Promise<Peak> {
  const { software } = device.gpu.info;
  const groups = software ? 64 : 8192, steps = 1024;
  const bytes = Math.floor(Math.min(64 * 2 ** 20, largestBuffer(device.gpu.device)) / 16) * 16;
  const sums = empty(device, [groups * 64 * 4], "workspace");
  const from = empty(device, [bytes / 4], "workspace");
  const to = empty(device, [bytes / 4], "workspace");
  try {
    fill(sums, 0.5); // 0.5 x + 0.5 stays where it is: no infinities, no denormals
    fill(from, 1);
    const runs = [
      () => device.dispatch(few, { steps }, [sums], [groups]),
      () => device.dispatch(many, { steps }, [sums], [groups]),
      () => device.dispatch(copy, { steps: bytes / 16 }, [to, from], strides(device, bytes / 16)),
    ];
    for (const run of runs) run(); // compiles
    await device.idle();
    const times: number[] = [];
    for (const run of runs) times.push((await race(device, [run], patience))[0].min);
    const chainSteps = Math.max(3 / times[0], 7 / times[1]) * groups * 64 * steps; // each 8 operations
    return { gflops: 8 * chainSteps / 1e6, gigabytes: 2 * bytes / times[2] / 1e6 };
  } finally {
    release(sums, from, to);
  }
}
