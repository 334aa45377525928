/** What layers keep of a sequence that comes piece by piece, as when text is generated token by token. */
import type { DType, Tensor } from "../tensor.ts";

/**
 * How a layer takes a sequence piece by piece: "alone" where each row of y follows from the same row of x and nothing else, or "past"
 * where its forward reads what came before from {@link Past}, and adds to it.
 */
export type Pieces = "alone" | "past";

/** What came before the rows of a forward. They are the next tokens of one sequence. */
export interface Past {
  /** How many tokens came before. */
  readonly position: number;
  /** The same on the device, u32 [1], for kernels that are recorded alike for each token. */
  readonly before: Tensor;
  /** How many tokens the sequence has at most. */
  readonly capacity: number;
  /**
   * What the layer keeps under a name, [capacity, width]: of undefined content at first, and as earlier forwards have left it from then
   * on. No new reference.
   */
  rows(name: string, width: number, dtype: DType): Tensor;
  /** The same of a shape that does not grow with the sequence, such as the state of a recurrence. */
  fixed(name: string, shape: readonly number[], dtype: DType): Tensor;
}

/** How a layer made of these takes a sequence piece by piece; not at all where one of them does not. */
export function piecesOf(...parts: readonly { readonly pieces?: Pieces }[]): { pieces?: Pieces } {
  if (parts.some(({ pieces }) => pieces === undefined)) return {};
  return { pieces: parts.some(({ pieces }) => pieces === "past") ? "past" : "alone" };
}
