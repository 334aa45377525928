/** Device time of recorded passes, by timestamp queries. */
import type { Device, TimestampSlot } from "./device.ts";

/** Start and end of a pass in milliseconds on the device's own clock. */
export interface Interval {
  /** When the pass began. */
  readonly start: number;
  /** When it ended. */
  readonly end: number;
}

/** Slots for the passes of a step, read together at its end. */
export interface Timer {
  /** The slot of pass number `index`, for `Device.beginPass`. */
  slot(index: number): TimestampSlot;
  /**
   * The intervals of passes 0 to `count - 1`, all of which must have been submitted. Errors of the passes are not looked for: they
   * are left for the next wait.
   */
  read(count: number): Promise<Interval[]>;
  /** Frees the query sets. */
  close(): void;
}

/** WebGPU allows 4,096 queries in a set, two for each pass. */
const passesInSet = 2048;

/** A timer for `device`, or undefined where the device has no timestamps. */
export function createTimer(device: Device): Timer | undefined {
  if (!device.gpu.info.timestamps) return undefined;
  const { device: gpuDevice } = device.gpu;
  const sets: { querySet: GPUQuerySet; resolved: GPUBuffer; staging: GPUBuffer }[] = [];
  const setOf = (index: number) => {
    const number = Math.floor(index / passesInSet);
    while (sets.length <= number) {
      const size = 2 * passesInSet * 8, label = device.labelOf(size, "workspace");
      sets.push({
        querySet: gpuDevice.createQuerySet({ type: "timestamp", count: 2 * passesInSet }),
        resolved: gpuDevice.createBuffer({
          size,
          label,
          usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
        }),
        staging: gpuDevice.createBuffer({ size, label, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ }),
      });
    }
    return sets[number];
  };
  return {
    slot: (index) => ({ querySet: setOf(index).querySet, index: 2 * (index % passesInSet) }),
    async read(count) {
      const intervals: Interval[] = [];
      for (let first = 0; first < count; first += passesInSet) {
        const { querySet, resolved, staging } = setOf(first);
        const passes = Math.min(passesInSet, count - first);
        device.resolveQueries(querySet, 2 * passes, resolved);
        device.copy(resolved, 0, staging, 0, 16 * passes);
        device.submit();
        await device.gpu.wait(staging.mapAsync(GPUMapMode.READ));
        const nanoseconds = new BigUint64Array(staging.getMappedRange(0, 16 * passes));
        for (let pass = 0; pass < passes; pass++) {
          intervals.push({ start: Number(nanoseconds[2 * pass]) / 1e6, end: Number(nanoseconds[2 * pass + 1]) / 1e6 });
        }
        staging.unmap();
      }
      return intervals;
    },
    close() {
      for (const { querySet, resolved, staging } of sets) {
        querySet.destroy();
        resolved.destroy();
        staging.destroy();
      }
    },
  };
}
