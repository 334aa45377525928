/**
 * What it costs to pass a tensor from one rank to the next, for virtual devices: they share a GPU and copy there, real
 * ones go through host memory. Measured on the device at hand, with the calls of the transport
 * between ranks of one process (see `lib/runtime/transports/in_process.ts`).
 */
import type { Device } from "../gpu/device.ts";
import { createTimer } from "../gpu/timing.ts";
import { matmul } from "../ops/matmul.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { ACTIVATION, isMessage, lower } from "../schedules/program.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { empty, release, sizeOf } from "../tensor.ts";
import type { Transfer } from "./costs.ts";
import { median } from "./statistics.ts";

/** Messages in a row, and rows of them: a few seconds with actions of {@link longestMs}, less with shorter ones. */
const hops = 6, rows = 3;
/** Waits are polled ever more rarely, up to a limit that is reached before this. */
const longestMs = 40;
/** Rows and columns of the product that keeps the device busy. */
const side = 256;

/**
 * Milliseconds between the end of an action and the moment when the next device, given `bytes` of its result, can start:
 * copy to a staging buffer, noticing that it is mapped, write, submission. The longer an action, the later its end is
 * noticed, so one of `busyMs` comes before each message.
 *
 * @throws {Error} When the device has no timestamps.
 */
export async function measureMessage(device: Device, bytes: number, busyMs: number): Promise<number> {
  const timer = createTimer(device);
  if (!timer) throw new Error(`${device.gpu.info.name} has no timestamps, which messages are measured with`);
  const [source, target] = [0, 0].map(() => empty(device, [Math.ceil(bytes / 4)], "transfer"));
  const [a, b, product] = [0, 0, 0].map(() => empty(device, [side, side], "workspace"));
  const size = source.bytes;
  const staging = [0, 0].map(() =>
    device.gpu.device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ })
  );
  const record = (hop: number, products: number) => {
    device.beginPass(timer.slot(hop));
    for (let i = 0; i < products; i++) matmul(product, a, b);
    device.copy(source.storage.buffer, source.offset, staging[hop % 2], 0, size);
    return device.finish();
  };
  /** Wall-clock time that the actions themselves do not explain, for each message; and the time of an action. */
  const chain = async (products: number) => {
    const name = `${bytes} bytes after ${products} products`; // a pipeline's messages have one too
    let next = record(0, products);
    const start = performance.now();
    for (let hop = 0; hop < hops; hop++) {
      device.submit(next);
      if (hop + 1 < hops) next = record(hop + 1, products); // as a rank does: before it waits
      await device.mapped(staging[hop % 2], name);
      device.write(target, staging[hop % 2].getMappedRange());
      staging[hop % 2].unmap();
    }
    const wall = performance.now() - start;
    const busy = (await timer.read(hops)).reduce((sum, { start, end }) => sum + end - start, 0);
    return { message: (wall - busy) / hops, action: busy / hops };
  };
  try {
    await chain(1); // compiles
    const products = Math.max(1, Math.round(Math.min(busyMs, longestMs) / (await chain(1)).action));
    const messages: number[] = [];
    for (let row = 0; row < rows; row++) messages.push((await chain(Math.min(products, 1000))).message);
    return Math.max(0, median(messages));
  } finally {
    release(source, target, a, b, product);
    staging.forEach((buffer) => buffer.destroy());
    timer.close();
  }
}

/** What virtual devices' step times hold besides device times. Milliseconds. */
export interface Overheads {
  /** What the host takes for an action: the time of a step in which no action ran, shared among them; median over the steps. */
  readonly hostMsPerAction: number;
  /** What a message from each rank to the next takes. */
  readonly messageMs: readonly number[];
  /** Whether messages were measured, or given. */
  readonly measured: boolean;
}

/**
 * Measures messages of the sizes that the pipeline's ranks exchange with micro-batches of `samples`, after actions as
 * long as the middle one of `actionMs`. `device` is what the ranks share. Where several stages meet on two ranks, their largest message counts.
 */
export async function measureLinks(
  device: Device,
  { model, parts, precision }: Pipeline,
  schedule: Schedule,
  samples: number,
  actionMs: readonly number[],
): Promise<Transfer> {
  const elementBytes = precision === "mixed" ? 2 : 4;
  let shape = model.inputShape(samples);
  /** Of each stage the bytes of its output, and of the gradient with respect to it. */
  const outputBytes = parts.map((layers) => {
    for (const layer of layers) shape = layer.outputShape(shape);
    return elementBytes * sizeOf(shape);
  });
  const program = lower(schedule), { from, to, what, rank, stage } = program;
  const bytesOf = new Map<string, number>();
  for (let edge = 0; edge < from.length; edge++) {
    if (!isMessage(program, edge)) continue;
    const key = `${rank[from[edge]]} ${rank[to[edge]]}`;
    const bytes = outputBytes[stage[what[edge] === ACTIVATION ? from[edge] : to[edge]]];
    bytesOf.set(key, Math.max(bytesOf.get(key) ?? 0, bytes));
  }
  const timeOf = new Map<number, number>();
  for (const bytes of new Set(bytesOf.values())) {
    timeOf.set(bytes, await measureMessage(device, bytes, median(actionMs)));
  }
  return (from, to) => timeOf.get(bytesOf.get(`${from} ${to}`) ?? NaN) ?? 0;
}
