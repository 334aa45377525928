/**
 * Bind groups, made once and found again: making one takes 12 us. The key is numbers, hashed and then compared: joined into
 * a text they took longer than the rest of a dispatch.
 */
import type { Storage } from "./pool.ts";

/** The part of a view that says what is bound. */
interface Bound {
  readonly storage: Storage;
  readonly offset: number;
  readonly bytes: number;
}

/** Bind groups of a device. */
export interface BindGroups {
  /** The group of these words and views for a pipeline; made by `make` where there is none yet. */
  get(
    pipeline: GPUComputePipeline,
    words: readonly number[] | undefined,
    views: readonly Bound[],
    make: () => GPUBindGroup,
  ): GPUBindGroup;
  /** Forgets all. */
  clear(): void;
}

interface Entry {
  readonly pipeline: GPUComputePipeline;
  readonly numbers: readonly number[];
  readonly group: GPUBindGroup;
}

/** Far more than a step needs; keeps a process that tries thousands of shapes from growing without end. */
const most = 20_000;

/** An empty cache; `forget` is told how many groups it has let go of, which only the garbage collector frees. */
export function createBindGroups(forget: (count: number) => void): BindGroups {
  const buckets = new Map<number, Entry[]>();
  let count = 0;
  const numbers: number[] = []; // of the key, reused
  const clear = () => {
    buckets.clear();
    forget(count);
    count = 0;
  };
  return {
    get(pipeline, words, views, make) {
      let length = 0;
      if (words) { for (let i = 0; i < words.length; i++) numbers[length++] = words[i]; }
      for (let i = 0; i < views.length; i++) {
        const { storage, offset, bytes } = views[i];
        numbers[length++] = storage.id;
        numbers[length++] = offset;
        numbers[length++] = bytes;
      }
      numbers.length = length;
      let hash = 0x811c9dc5; // FNV-1a, a number at a time
      for (let i = 0; i < length; i++) hash = Math.imul(hash ^ numbers[i], 0x01000193);
      const bucket = buckets.get(hash);
      if (bucket) {
        for (const entry of bucket) {
          if (entry.pipeline === pipeline && equal(entry.numbers, numbers)) return entry.group;
        }
      }
      if (count >= most) clear();
      const entry = { pipeline, numbers: numbers.slice(), group: make() };
      const kept = buckets.get(hash);
      if (kept) kept.push(entry);
      else buckets.set(hash, [entry]);
      count++;
      return entry.group;
    },
    clear,
  };
}

function equal(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
