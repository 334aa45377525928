/** The micro-batches of one W, and the memory that they share. */
import { type Category, padded } from "../memory.ts";
import { bytesOf, type DType, empty, release, type Tensor, view } from "../tensor.ts";
import type { Placed } from "./placed.ts";
import type { Sums } from "./sums.ts";

/**
 * The micro-batches that one W takes together. What that W reads of each of them lies in *slabs*, one buffer with a slot
 * for each micro-batch, so that the slots of a group are neighbours and one matmul serves them all, without a copy.
 */
export interface Group {
  /** The tensors of the layers that the micro-batches go through; the slabs are on the same device. */
  readonly placed: Placed;
  /** Number of micro-batches. */
  readonly size: number;
  /** Number of samples in a micro-batch; 1 where nobody says. */
  readonly samples: number;
  /** Whether W comes at a time of its own. Where a full backward ends the group, it follows I at once. */
  readonly delayed: boolean;
  /** Who makes the sums that only W reads: I, where that W follows at once. */
  readonly sums: Sums;
  /** Slab by name, made when the first micro-batch asks for its slot. */
  readonly slabs: Map<string, Tensor>;
}

/**
 * A group of `size` micro-batches, with no memory yet; W is delayed, a micro-batch one sample, and sums are I's, unless said
 * otherwise. Where W is not delayed, I makes the sums whatever is said.
 */
export function createGroup(
  placed: Placed,
  size: number,
  { delayed = true, samples = 1, sums = "i" }: Partial<Pick<Group, "delayed" | "samples" | "sums">> = {},
): Group {
  return { placed, size, samples, delayed, sums: delayed ? sums : "i", slabs: new Map() };
}

/**
 * A new tensor in the slot of micro-batch `index` in the group's slab `name`; the caller owns a reference. For the x and dy of a whole
 * stage, which come from outside its layers; a layer asks its `Saved.slot`.
 */
export function slotIn(
  { placed: { device }, size, slabs }: Group,
  index: number,
  name: string,
  shape: readonly number[],
  category: Category,
  dtype: DType = "f32",
): Tensor {
  if (size === 1) return empty(device, shape, category, dtype);
  // A slot starts where a kernel can be bound to it. Slots whose size is no multiple of that do not touch; W then takes
  // the micro-batches one after the other (see joinAdjacent).
  const stride = padded(bytesOf(shape, dtype));
  let slab = slabs.get(name);
  if (!slab) {
    slabs.set(name, slab = empty(device, [size * stride / bytesOf([1], dtype)], category, dtype));
  }
  return view(slab, shape, index * stride);
}

/** Gives up the group's slabs; slots still held by somebody live on. */
export function releaseGroup(group: Group): void {
  release(...group.slabs.values());
  group.slabs.clear();
}
