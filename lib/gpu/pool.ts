/** GPU buffers, reused by size, every byte entered into the rank's ledger. */
import type { Category, Ledger } from "./ledger.ts";

/** A buffer handed out by a pool. It returns when its last reference is released. */
export interface Storage {
  /** Unique in the process: names the buffer in cache keys. */
  readonly id: number;
  /** WebGPU's buffer. */
  readonly buffer: GPUBuffer;
  /** Size of the buffer, a multiple of 256. */
  readonly bytes: number;
  /** What it is counted under. */
  category: Category;
  /** How many tensors hold it. */
  references: number;
}

/** Buffers of one rank. */
export interface Pool {
  /** Storage of at least `bytes` bytes with one reference; content undefined. */
  allocate(bytes: number, category: Category): Storage;
  /** Another reference to storage in use. */
  retain(storage: Storage): void;
  /** Drops a reference; the last one returns the buffer to the pool. */
  release(storage: Storage): void;
  /** What is handed out now; with {@link Pool.rollback} a way back to here. */
  mark(): ReadonlySet<Storage>;
  /** Takes back everything handed out since the mark, whoever holds it: the end of a step that failed. */
  rollback(mark: ReadonlySet<Storage>): void;
  /** Bytes held by free buffers: what the pool occupies beyond what the ledger counts. */
  slack(): number;
  /** Destroys the free buffers. */
  trim(): void;
}

const granularity = 256;
let nextId = 1;

/**
 * A pool that keeps free buffers by exact size (rounded up to 256 bytes) and gives out the oldest: a step that allocates in
 * the same order as the one before gets the same buffers, so that its bind groups are found again. (Last in, first out,
 * the buffers changed places from step to step; the new bind groups of every step cost lavapipe a mapping each, seconds
 * of stalls, and in the end the process.)
 */
export function createPool(device: GPUDevice, ledger: Ledger, fail: (message: string) => never): Pool {
  const free = new Map<number, Storage[]>();
  const live = new Set<Storage>();
  const limit = Math.min(device.limits.maxBufferSize, device.limits.maxStorageBufferBindingSize);
  let slack = 0;

  function giveBack(storage: Storage) {
    storage.references = 0;
    live.delete(storage);
    ledger.remove(storage.category, storage.bytes);
    let list = free.get(storage.bytes);
    if (!list) free.set(storage.bytes, list = []);
    let at = list.length; // from the newest to the oldest, which is taken next
    while (at > 0 && list[at - 1].id < storage.id) at--;
    list.splice(at, 0, storage);
    slack += storage.bytes;
  }

  return {
    allocate(wanted, category) {
      const bytes = Math.max(granularity, Math.ceil(wanted / granularity) * granularity);
      if (bytes > limit) {
        fail(`${wanted} bytes of ${category} asked for in one buffer, where this device allows ${limit}`);
      }
      let storage = free.get(bytes)?.pop();
      if (storage) {
        slack -= bytes;
        storage.category = category;
        storage.references = 1;
      } else {
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        storage = { id: nextId++, buffer: device.createBuffer({ size: bytes, usage }), bytes, category, references: 1 };
      }
      live.add(storage);
      ledger.add(category, bytes);
      return storage;
    },
    retain(storage) {
      if (storage.references < 1) fail(`storage ${storage.id} (${storage.category}) is used after its release`);
      storage.references++;
    },
    release(storage) {
      if (storage.references < 1) fail(`storage ${storage.id} (${storage.category}) is released twice`);
      if (--storage.references === 0) giveBack(storage);
    },
    mark: () => new Set(live),
    rollback(mark) {
      for (const storage of live) if (!mark.has(storage)) giveBack(storage);
    },
    slack: () => slack,
    trim() {
      for (const list of free.values()) for (const storage of list) storage.buffer.destroy();
      free.clear();
      slack = 0;
    },
  };
}
