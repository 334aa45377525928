/** This machine and a device, for a look at how quiet they are. */
import { cpus } from "node:os";
import process from "node:process";
import type { Device } from "../gpu/device.ts";
import type { NoiseReader } from "./noise.ts";
import { timeProduct } from "./product.ts";

/** Cores and clock of this machine, and a product of matrices on a device that does nothing else meanwhile. */
export function noiseReader(device: Device): NoiseReader {
  return {
    busy: () => cpus().map(({ times: { user, nice, sys, irq } }) => user + nice + sys + irq),
    own() {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
    now: () => performance.now(),
    wait: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    async repeat(rounds) {
      const side = device.gpu.info.software ? 256 : 2048;
      return (await timeProduct(device, side, "f32", { rounds, turnMs: 5 })).each;
    },
  };
}
