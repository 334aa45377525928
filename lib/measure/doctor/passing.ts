/** What passes between the host and devices, and from device to device, by the calls that a step makes. */
import type { Device } from "../../gpu/device.ts";
import { empty, release } from "../../tensor.ts";
import { median } from "../statistics.ts";
import type { PassingTimes } from "./diagnosis.ts";

const large = 16 * 2 ** 20, small = 4096;
const turns = 5;

/** Measures between two devices, which may share a GPU, and the host. */
export async function measurePassing(from: Device, to: Device): Promise<PassingTimes> {
  const source = empty(from, [large / 4], "transfer"), target = empty(to, [large / 4], "transfer");
  const host = new ArrayBuffer(large);
  try {
    return {
      bytes: large,
      toDevice: await timed(async () => {
        to.write(target, host);
        await to.idle();
      }),
      toHost: await timed(() => from.read(source)),
      message: await timed(() => pass(from, source, to, target, large)),
      smallBytes: small,
      smallMessage: await timed(() => pass(from, source, to, target, small)),
    };
  } finally {
    release(source, target);
  }
}

type View = Parameters<Device["write"]>[0];

/** As a message goes: copied into a staging buffer, mapped, written into the other device. */
async function pass(from: Device, source: View, to: Device, target: View, bytes: number): Promise<void> {
  const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
  const staging = from.gpu.device.createBuffer({ size: bytes, usage });
  try {
    from.copy(source.storage.buffer, source.offset, staging, 0, bytes);
    from.submit();
    await from.mapped(staging);
    to.write(target, staging.getMappedRange());
    staging.unmap();
    await to.idle();
  } finally {
    staging.destroy();
  }
}

/** The median, in milliseconds, after a turn that is not counted. */
async function timed(run: () => Promise<unknown>): Promise<number> {
  await run();
  const times: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const start = performance.now();
    await run();
    times.push(performance.now() - start);
  }
  return median(times);
}
