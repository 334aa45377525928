/** What a rank's GPU memory is for. */
export type Category =
  | "parameters"
  | "gradients"
  | "optimizer"
  | "activations"
  | "derivatives"
  | "transfer"
  | "workspace";

/** All categories, in the order tables show them. */
export const categories: readonly Category[] = [
  "parameters",
  "gradients",
  "optimizer",
  "activations",
  "derivatives",
  "transfer",
  "workspace",
];

/** Bytes for each category. */
export type Bytes = Record<Category, number>;

/**
 * Counts every byte of one rank's buffers. WebGPU tells nobody how much memory is in use, so this is the only account
 * there is: what is *in use*, not what the pool keeps for later (see `Pool.slack`).
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
  /** Starts a new account of peaks from what is in use now. */
  resetPeak(): void;
  /** Enters bytes that come into use. */
  add(category: Category, bytes: number): void;
  /** Takes out bytes that go out of use. */
  remove(category: Category, bytes: number): void;
}

/** A new, empty ledger. */
export function createLedger(): Ledger {
  const live = zero();
  const peak = zero();
  let total = 0;
  let totalPeak = 0;
  return {
    live,
    peak,
    total: () => total,
    totalPeak: () => totalPeak,
    resetPeak() {
      Object.assign(peak, live);
      totalPeak = total;
    },
    add(category, bytes) {
      live[category] += bytes;
      total += bytes;
      peak[category] = Math.max(peak[category], live[category]);
      totalPeak = Math.max(totalPeak, total);
    },
    remove(category, bytes) {
      live[category] -= bytes;
      total -= bytes;
    },
  };
}

function zero(): Bytes {
  return Object.fromEntries(categories.map((category) => [category, 0])) as Bytes;
}
