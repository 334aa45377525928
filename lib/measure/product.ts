/** A product of square matrices on a device, timed: what a device's speed, and how steady that is, are read from. */
import type { Device } from "../gpu/device.ts";
import { fill } from "../ops/elementwise.ts";
import { matmul } from "../ops/matmul.ts";
import { type DType, empty, release } from "../tensor.ts";
import { type Patience, race, type Times } from "./stopwatch.ts";

/** Times the product of two matrices of `side` x `side`, after one that compiles its kernel. */
export async function timeProduct(device: Device, side: number, dtype: DType, patience: Patience): Promise<Times> {
  const [out, a, b] = [0, 0, 0].map(() => empty(device, [side, side], "workspace", dtype));
  try {
    fill(a, 0.5);
    fill(b, 0.25);
    const run = () => matmul(out, a, b);
    run();
    await device.idle();
    const [times] = await race(device, [run], patience);
    return times;
  } finally {
    release(out, a, b);
  }
}
