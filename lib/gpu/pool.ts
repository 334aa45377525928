/** GPU buffers, reused by size, every byte entered into the rank's ledger. */
import { type Category, padded } from "../memory.ts";
import type { Ledger } from "./ledger.ts";

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
  /** The step in which it was last handed out. */
  step: number;
}

/** Buffers of one rank. */
export interface Pool {
  /** Storage of at least `bytes` bytes with one reference; content undefined. */
  allocate(bytes: number, category: Category): Storage;
  /** Another reference to storage in use. */
  retain(storage: Storage): void;
  /** From now on counts storage in use under another category: its content is written over with something else. */
  recategorize(storage: Storage, category: Category): void;
  /** Drops a reference; the last one returns the buffer to the pool. */
  release(storage: Storage): void;
  /** What is handed out now; with {@link Pool.rollback} a way back to here. */
  mark(): ReadonlySet<Storage>;
  /** Takes back everything handed out since the mark, whoever holds it: the end of a step that failed. */
  rollback(mark: ReadonlySet<Storage>): void;
  /** Bytes held by free buffers: what the pool occupies beyond what the ledger counts. */
  slack(): number;
  /** Destroys the free buffers, but for those that a recording still to be submitted may use. */
  trim(): void;
  /** All that was recorded has been submitted: what is free now may be destroyed. */
  settle(): void;
  /** A step has ended: free buffers that none of the last {@link keptSteps} steps has used are destroyed. */
  endStep(): void;
  /** Enters a buffer that carries messages, made or (negative) destroyed by the caller, into the budget and what is reserved. */
  reserve(bytes: number, category: Category): void;
  /** Asks `trim` to destroy free buffers of messages where the budget would be exceeded; what it returns ends that. */
  shareWith(trim: () => void): () => void;
  /** The most bytes that buffers may take, free ones included; `undefined` takes the limit away. */
  limitTo(budget: number | undefined): void;
}

/** What a pool needs of the device it belongs to. */
export interface PoolOwner {
  /** Throws an error that names the device. */
  readonly fail: (message: string) => never;
  /** Whether something is recorded and not yet submitted. */
  readonly isRecording: () => boolean;
  /** Called when buffers have been destroyed. */
  readonly onDestroy: () => void;
  /** Name of a new buffer: what the driver says when it cannot be had. */
  readonly label: (bytes: number, category: Category) => string;
}

/**
 * Steps that a free buffer is kept for. Far more than the schedules that a benchmark runs in turn, so that each finds its
 * buffers, and their bind groups, again.
 */
export const keptSteps = 64;

let nextId = 1;

/** The most bytes of a buffer, whatever a device allows: kernels count elements in u32, and have to go a little beyond the last. */
const mostIndexed = 2 ** 32;

/** The most bytes that one buffer of a device may have to be bound as a whole. */
export function largestBuffer({ limits }: GPUDevice): number {
  return Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize, mostIndexed);
}

/**
 * A pool that keeps free buffers by exact size (rounded up to 256 bytes) and gives out the oldest: a step that allocates in
 * the same order as the one before gets the same buffers, so that its bind groups are found again. (Last in, first out,
 * the buffers changed places from step to step; the new bind groups of every step cost lavapipe a mapping each, seconds
 * of stalls, and in the end the process.)
 *
 * Free buffers that the recording under way has used go first: nothing else can be done with them before it is submitted, while
 * the others can be destroyed to make room. So what an action needs at most depends on what it allocates and releases alone, not
 * on what the pool happens to hold, and a step that stays within a budget on dry devices does so on real ones.
 */
export function createPool(
  device: GPUDevice,
  ledger: Ledger,
  { fail, onDestroy, label, isRecording }: PoolOwner,
): Pool {
  const free = new Map<number, Storage[]>();
  const live = new Set<Storage>();
  /** Free buffers that the recording under way may use. */
  const unsettled = new Set<Storage>();
  const sharers = new Set<() => void>();
  let step = 0;
  let budget: number | undefined;
  const limit = largestBuffer(device);
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
    if (isRecording()) unsettled.add(storage);
    else ledger.spare(storage.bytes);
  }

  /** The oldest free buffer of this size, of those that the recording has used if there are any. */
  function take(bytes: number): Storage | undefined {
    const list = free.get(bytes);
    if (!list?.length) return undefined;
    let at = list.length - 1;
    if (unsettled.size > 0) {
      while (at >= 0 && !unsettled.has(list[at])) at--;
      if (at < 0) at = list.length - 1;
    }
    const [storage] = list.splice(at, 1);
    slack -= bytes;
    if (!unsettled.delete(storage)) ledger.spare(-bytes);
    return storage;
  }

  function destroy(isUnwanted: (storage: Storage) => boolean) {
    let destroyed = false;
    for (const [bytes, list] of free) {
      const kept = list.filter((storage) => {
        if (unsettled.has(storage) || !isUnwanted(storage)) return true;
        storage.buffer.destroy();
        ledger.reserve(-bytes);
        ledger.spare(-bytes);
        slack -= bytes;
        destroyed = true;
        return false;
      });
      if (kept.length > 0) free.set(bytes, kept);
      else free.delete(bytes);
    }
    if (destroyed) onDestroy();
  }

  function reserve(bytes: number, category: Category) {
    if (budget !== undefined && bytes > 0) {
      if (ledger.reserved() + bytes > budget) {
        destroy(() => true);
        for (const trim of sharers) trim();
      }
      if (ledger.reserved() + bytes > budget) {
        fail(
          `${bytes} bytes of ${category} exceed the budget of ${budget}: ${ledger.total()} are in use, ` +
            `${ledger.reserved() - ledger.total()} are held by what is recorded, ${
              Math.max(0, budget - ledger.reserved())
            } are free`,
        );
      }
    }
    ledger.reserve(bytes);
  }

  return {
    allocate(wanted, category) {
      const bytes = padded(wanted);
      if (bytes > limit) {
        fail(
          `${wanted} bytes of ${category} asked for in one buffer, where this device allows ${limit}; ${
            category === "parameters" || category === "gradients" || category === "optimizer"
              ? "a smaller model needs less"
              : "a smaller micro-batch or model needs less"
          }`,
        );
      }
      let storage = take(bytes);
      if (storage) {
        storage.category = category;
        storage.references = 1;
      } else {
        reserve(bytes, category);
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        const buffer = device.createBuffer({ size: bytes, usage, label: label(bytes, category) });
        storage = { id: nextId++, buffer, bytes, category, references: 1, step };
      }
      storage.step = step;
      live.add(storage);
      ledger.add(category, bytes);
      return storage;
    },
    retain(storage) {
      if (storage.references < 1) fail(`storage ${storage.id} (${storage.category}) is used after its release`);
      storage.references++;
    },
    recategorize(storage, category) {
      if (storage.category === category) return;
      ledger.remove(storage.category, storage.bytes);
      ledger.add(storage.category = category, storage.bytes);
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
    trim: () => destroy(() => true),
    settle() {
      for (const { bytes } of unsettled) ledger.spare(bytes);
      unsettled.clear();
    },
    endStep() {
      step++;
      destroy((storage) => storage.step < step - keptSteps);
    },
    reserve,
    shareWith(trim) {
      sharers.add(trim);
      return () => void sharers.delete(trim);
    },
    limitTo(bytes) {
      budget = bytes;
      if (budget !== undefined && ledger.reserved() > budget) destroy(() => true);
    },
  };
}
