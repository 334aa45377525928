/** Buffers that carry messages between a device and MPI, kept for the next message of their size, all in the device's ledger. */
import type { Device } from "../../gpu/device.ts";

/** Buffers of one kind that the host has mapped or will map, kept by size. */
export interface Ring {
  /** A free one, or a new one, counted as in use. */
  take(bytes: number): GPUBuffer;
  /** Counts one as free, to be taken again from now on, or once `ready` has settled. */
  give(buffer: GPUBuffer, bytes: number, ready?: Promise<unknown>): void;
  /** Destroys one that was taken: what is under way with it may never end. */
  lose(buffer: GPUBuffer, bytes: number): void;
  trim(): void;
}

/** What messages from other processes are written into. */
export const uploads = (size: number): GPUBufferDescriptor => ({
  size,
  usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.MAP_WRITE,
  mappedAtCreation: true,
});

/** Makes a ring of such buffers on a device. */
export function createRing(device: Device, make: (bytes: number) => GPUBufferDescriptor): Ring {
  const { gpu, ledger, pool } = device;
  const free = new Map<number, GPUBuffer[]>();
  /** Those that are free as soon as the device has done with them. */
  const soon = new Map<GPUBuffer, number>();
  const freeOf = (bytes: number) => {
    let list = free.get(bytes);
    if (!list) free.set(bytes, list = []);
    return list;
  };
  const destroy = (buffer: GPUBuffer, bytes: number) => {
    buffer.destroy();
    pool.reserve(-bytes, "transfer");
    ledger.spare(-bytes);
  };
  return {
    take(bytes) {
      let buffer = freeOf(bytes).pop();
      if (buffer) ledger.spare(-bytes);
      else {
        pool.reserve(bytes, "transfer");
        buffer = gpu.device.createBuffer({ ...make(bytes), label: device.labelOf(bytes, "transfer") });
      }
      ledger.add("transfer", bytes);
      return buffer;
    },
    give(buffer, bytes, ready) {
      ledger.spare(bytes); // first: what is needed and not in use is what a recording holds
      ledger.remove("transfer", bytes);
      if (!ready) return void freeOf(bytes).push(buffer);
      soon.set(buffer, bytes);
      ready.then(() => {
        if (soon.delete(buffer)) freeOf(bytes).push(buffer);
      }, () => {
        if (soon.delete(buffer)) destroy(buffer, bytes);
      });
    },
    lose(buffer, bytes) {
      buffer.destroy();
      pool.reserve(-bytes, "transfer");
      ledger.remove("transfer", bytes);
    },
    trim() {
      for (const [bytes, list] of free) list.splice(0).forEach((buffer) => destroy(buffer, bytes));
      for (const [buffer, bytes] of soon) destroy(buffer, bytes);
      soon.clear();
    },
  };
}
