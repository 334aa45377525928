/** What a device does at best, and what the kernel that matters most comes to. */
import type { Device } from "../../gpu/device.ts";
import type { DType } from "../../tensor.ts";
import { measurePeak } from "../peak.ts";
import { timeProduct } from "../product.ts";
import type { Patience } from "../stopwatch.ts";
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
  const { min } = await timeProduct(device, side, dtype, patience);
  return 2 * side ** 3 / min / 1e6;
}
