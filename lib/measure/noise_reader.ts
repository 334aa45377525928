/** This machine and a device, for a look at how quiet they are. */
import { cpus } from "node:os";
import process from "node:process";
import type { Device } from "../gpu/device.ts";
import { fill } from "../ops/elementwise.ts";
import { matmul } from "../ops/matmul.ts";
import { empty, release } from "../tensor.ts";
import type { NoiseReader } from "./noise.ts";
import { race } from "./stopwatch.ts";

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
      const [out, a, b] = [0, 0, 0].map(() => empty(device, [side, side], "workspace"));
      try {
        fill(a, 0.5);
        fill(b, 0.25);
        const run = () => matmul(out, a, b);
        run(); // compiles
        await device.idle();
        const [{ each }] = await race(device, [run], { rounds, turnMs: 5 });
        return each;
      } finally {
        release(out, a, b);
      }
    },
  };
}
