/** What a device does at best, and what the kernel that matters most comes to. */
import type { Device } from "../../gpu/device.ts";
import { fill } from "../../ops/elementwise.ts";
import { matmul } from "../../ops/matmul.ts";
import { type DType, empty, release } from "../../tensor.ts";
import { measurePeak } from "../peak.ts";
import { type Patience, race } from "../stopwatch.ts";
import type { Rates } from "./diagnosis.ts";

const patience: Patience = { rounds: 3, turnMs: 5 };

/** Measures for some seconds. */
export async function measureRates(device: Device): Promise<Rates> {
  const { software, f16 } = device.gpu.info;
  const side = software ? 256 : 4096;
  const product = await productRate(device, side, "f32");
  const halfProduct = f16 ? await productRate(device, side, "f16") : undefined;
  const peak = await measurePeak(device, patience);
  return { ...peak, side, product, ...halfProduct === undefined ? {} : { halfProduct } };
}

/** 10^9 floating-point operations a second of a product of square matrices. */
async function productRate(device: Device, side: number, dtype: DType): Promise<number> {
  const [out, a, b] = [0, 0, 0].map(() => empty(device, [side, side], "workspace", dtype));
  try {
    fill(a, 0.5);
    fill(b, 0.25);
    const run = () => matmul(out, a, b);
    run(); // compiles
    await device.idle();
    const [{ min }] = await race(device, [run], patience);
    return 2 * side ** 3 / min / 1e6;
  } finally {
    release(out, a, b);
  }
}
