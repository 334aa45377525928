/** Whether anything grows while a step is repeated: bytes of the ledgers, buffers, the process's memory. */
import process from "node:process";
import { UserError } from "../errors.ts";
import type { DeviceSet } from "../gpu/devices.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { callback, expectFields, optional, positive, type Rules } from "../rules.ts";
import type { Schedule } from "../schedules/schedule.ts";
import type { BatchSource } from "../train/data.ts";
import { collectGarbage } from "../gpu/garbage.ts";
import { sizesOf } from "../schedules/check/sizes.ts";

/** What there is after so many steps. */
export interface GrowthRow {
  /** Steps done. */
  readonly step: number;
  /** Bytes in use between two steps, all devices together. */
  readonly inUse: number;
  /** Bytes of the pools' and channels' buffers, free ones included, all devices together. */
  readonly reserved: number;
  /** WebGPU's buffers that have been made and not destroyed, of whatever kind. */
  readonly buffers: number;
  /** Resident bytes of the process, after its garbage was collected. */
  readonly resident: number;
  /** Bytes on the engine's heap. */
  readonly heap: number;
}

/** What is looked at. */
export type GrowthQuantity = Exclude<keyof GrowthRow, "step">;

/** All of them, in the order tables show them. */
export const growthQuantities: readonly GrowthQuantity[] = ["inUse", "reserved", "buffers", "resident", "heap"];

/** A run of many steps. */
export interface Growth {
  /** In the order of the steps. */
  readonly rows: readonly GrowthRow[];
  /**
   * Growth a step of each quantity: the slope of the line of least squares through the rows but for the first fifth, in which
   * the engine still compiles.
   */
  readonly slopes: Readonly<Record<GrowthQuantity, number>>;
}

/** How to run. */
export interface GrowthOptions {
  /** Steps in all. */
  readonly steps: number;
  /** Steps between two rows; the first row comes after as many, when kernels and staging buffers have been made. */
  readonly every: number;
  /** Samples in a micro-batch. */
  readonly samples: number;
  /** Called with each row. */
  readonly onRow?: (row: GrowthRow) => void;
}

const rules: Rules<GrowthOptions> = {
  steps: positive,
  every: positive,
  samples: positive,
  onRow: optional(callback),
};

/**
 * Repeats a step of `schedule` on fresh batches of `source`, and looks at what there is every so many steps.
 *
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export async function measureGrowth(
  set: DeviceSet,
  make: () => Pipeline,
  schedule: Schedule,
  source: BatchSource,
  options: GrowthOptions,
): Promise<Growth> {
  expectFields("measureGrowth", options, rules);
  const { steps, every, samples, onRow } = options;
  if (every > steps) {
    throw new UserError(`measureGrowth: every ${every} must not exceed steps ${steps}: there is no row`);
  }
  const { count, stop } = countBuffers(set);
  const pipeline = make();
  const rows: GrowthRow[] = [];
  const sum = (read: (device: DeviceSet["devices"][number]) => number) =>
    set.devices.reduce((total, device) => total + read(device), 0);
  try {
    for (let step = 1; step <= steps; step++) {
      await pipeline.step(schedule, await source.next(samples * sizesOf(schedule).microbatches * pipeline.replicas));
      if (step % every !== 0) continue;
      for (let round = 0; round < 3; round++) { // what one round frees, finalizers included, the next may follow
        collectGarbage();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const { rss, heapUsed } = process.memoryUsage();
      const row = {
        step,
        inUse: sum(({ ledger }) => ledger.total()),
        reserved: sum(({ ledger }) => ledger.reserved()),
        buffers: count(),
        resident: rss,
        heap: heapUsed,
      };
      rows.push(row);
      onRow?.(row);
    }
  } finally {
    pipeline.close();
    stop();
  }
  const settled = rows.slice(Math.ceil(rows.length / 5));
  const slopes = Object.fromEntries(
    growthQuantities.map((quantity) => [quantity, slope(settled.map((row) => [row.step, row[quantity]]))]),
  ) as Growth["slopes"];
  return { rows, slopes };
}

/** The slope of the line of least squares through points; 0 for fewer than two. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (at: 0 | 1) => points.reduce((sum, point) => sum + point[at], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  let above = 0, below = 0;
  for (const point of points) {
    above += (point[0] - x) * (point[1] - y);
    below += (point[0] - x) ** 2;
  }
  return below === 0 ? 0 : above / below;
}

/** Counts the buffers that are made from now on, and takes off those that are destroyed. */
function countBuffers({ devices }: DeviceSet): { count: () => number; stop: () => void } {
  let buffers = 0;
  const gpus = [...new Set(devices.map(({ gpu }) => gpu.device))];
  for (const device of gpus) {
    const create = device.createBuffer.bind(device);
    const counted = (descriptor: GPUBufferDescriptor) => {
      const buffer = create(descriptor);
      const destroy = buffer.destroy.bind(buffer);
      buffers++;
      Object.defineProperty(buffer, "destroy", {
        configurable: true,
        value() {
          Reflect.deleteProperty(buffer, "destroy"); // a second time changes nothing
          buffers--;
          destroy();
        },
      });
      return buffer;
    };
    Object.defineProperty(device, "createBuffer", { value: counted, configurable: true });
  }
  return {
    count: () => buffers,
    stop: () => gpus.forEach((device) => Reflect.deleteProperty(device, "createBuffer")),
  };
}
