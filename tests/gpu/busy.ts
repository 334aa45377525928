/** Keeps one of two open devices busy, prints the processor time that this took, and ends without being told to. */
import process from "node:process";
import { openDevices } from "../../lib/gpu/devices.ts";
import { matmul } from "../../lib/ops/matmul.ts";
import { fromArray } from "../../lib/tensor.ts";

const set = await openDevices(2);
const [device] = set.devices;
const size = 512;
const [a, b, c] = [1, 2, 3].map(() => fromArray(device, [size, size], new Float32Array(size * size), "workspace"));
matmul(c, a, b);
await device.idle();
const start = { cpu: process.cpuUsage(), wall: performance.now() };
for (let i = 0; i < 8; i++) {
  for (let k = 0; k < 2; k++) matmul(c, a, b);
  await device.idle();
}
const { user, system } = process.cpuUsage(start.cpu);
const share = (user + system) / 1000 / (performance.now() - start.wall);
console.log(JSON.stringify({ software: device.gpu.info.software, share }));
set.close();
