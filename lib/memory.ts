/** What memory is counted by: categories, and the grain of buffers. Predictions, schedules' prices and real ledgers share both. */

/** What a rank's memory is for. */
export type Category =
  | "parameters"
  | "gradients"
  | "optimizer"
  | "activations"
  | "derivatives"
  | "transfer"
  | "workspace";

/** All categories, in the order tables and figures show them. */
export const categories: readonly Category[] = [
  "parameters",
  "gradients",
  "optimizer",
  "activations",
  "derivatives",
  "transfer",
  "workspace",
];

/** An amount for each category: bytes, or whatever unit a memory model is in. */
export type Bytes = Record<Category, number>;

/** Nothing in any category. */
export function noBytes(): Bytes {
  return Object.fromEntries(categories.map((category) => [category, 0])) as Bytes;
}

/** Bytes that the start of every bound view must be a multiple of: WebGPU's default for storage buffers. */
export const alignment = 256;

/** What a buffer of so many bytes takes: a multiple of {@link alignment}, and no less than that. */
export function padded(bytes: number): number {
  return Math.max(alignment, Math.ceil(bytes / alignment) * alignment);
}
