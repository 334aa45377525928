/** The account of one rank's GPU memory. */
import { type Bytes, type Category, noBytes } from "../memory.ts";

/** A change of what is in use: bytes of a category that come, or go where `bytes` is negative. */
export type Observer = (category: Category, bytes: number) => void;

/**
 * Counts every byte of one rank's buffers. WebGPU tells nobody how much memory is in use, so this is the only account
 * there is. It counts three times: what is *in use*, by category; what is *needed*, which is that and the free buffers that the
 * recording under way has used, so that they cannot be given up; and what is *reserved*, which is all buffers, those that are
 * kept for later included.
 */
export interface Ledger {
  /** Bytes in use now. */
  readonly live: Bytes;
  /** The most bytes in use at once since the last {@link Ledger.resetPeak}, each category by itself. */
  readonly peak: Bytes;
  /** Bytes in use now, all categories. */
  total(): number;
  /** The most bytes in use at once, all categories together. */
  totalPeak(): number;
  /** Bytes of all buffers that exist now, in use or kept for later. */
  reserved(): number;
  /** The most bytes reserved at once since the last {@link Ledger.resetPeak}. */
  reservedPeak(): number;
  /** Bytes needed now. */
  needed(): number;
  /** The most bytes needed at once since the last {@link Ledger.resetPeak}: the least budget that would do. */
  neededPeak(): number;
  /** Starts a new account of peaks from what is in use now. */
  resetPeak(): void;
  /** Enters bytes that come into use. */
  add(category: Category, bytes: number): void;
  /** Takes out bytes that go out of use. */
  remove(category: Category, bytes: number): void;
  /** Enters the bytes of a buffer that was made, or with a negative number of one that was destroyed. */
  reserve(bytes: number): void;
  /** Enters bytes of free buffers that may be destroyed from now on, or with a negative number no longer. */
  spare(bytes: number): void;
  /**
   * Tells of every change of what is in use from now on; without an observer nobody is told any more.
   *
   * @internal
   */
  observe(observer?: Observer): void;
}

/** A new, empty ledger. */
export function createLedger(): Ledger {
  const live = noBytes();
  const peak = noBytes();
  let total = 0;
  let totalPeak = 0;
  let reserved = 0;
  let reservedPeak = 0;
  let spare = 0;
  let neededPeak = 0;
  let observer: Observer | undefined;
  return {
    live,
    peak,
    total: () => total,
    totalPeak: () => totalPeak,
    reserved: () => reserved,
    reservedPeak: () => reservedPeak,
    needed: () => reserved - spare,
    neededPeak: () => neededPeak,
    resetPeak() {
      Object.assign(peak, live);
      totalPeak = total;
      reservedPeak = reserved;
      neededPeak = reserved - spare;
    },
    add(category, bytes) {
      live[category] += bytes;
      total += bytes;
      peak[category] = Math.max(peak[category], live[category]);
      totalPeak = Math.max(totalPeak, total);
      observer?.(category, bytes);
    },
    remove(category, bytes) {
      live[category] -= bytes;
      total -= bytes;
      observer?.(category, -bytes);
    },
    reserve(bytes) {
      reserved += bytes;
      reservedPeak = Math.max(reservedPeak, reserved);
      neededPeak = Math.max(neededPeak, reserved - spare);
    },
    spare(bytes) {
      spare += bytes;
      neededPeak = Math.max(neededPeak, reserved - spare);
    },
    observe(next) {
      observer = next;
    },
  };
}
