/** What all ways to compute attention have in common: sizes, masks, and what a way is. */
import type { GpuInfo } from "../gpu/gpu.ts";
import type { DType, Tensor } from "../tensor.ts";
import type { DropoutMask } from "./dropout.ts";

/** Sizes of an attention layer. */
export interface AttentionShape {
  /** Sequences of the batch. */
  readonly sequences: number;
  /** Positions of a sequence, T. */
  readonly length: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads, as many by default; `heads` is a multiple: neighbouring query heads share one. */
  readonly kvHeads?: number;
  /** Features of a head. */
  readonly headSize: number;
  /** Whether a position sees those up to itself only, the default, or all. */
  readonly causal?: boolean;
}

/** What an attention layer leaves out. */
export interface AttentionMasks {
  /** Valid positions of each sequence, u32 [sequences]: those behind are seen by none, but see. All of them by default. */
  readonly lengths?: Tensor;
  /**
   * Where in its sequence the document of each position starts, u32 [sequences, length]: positions before it are not seen from there.
   * Causal attention without `lengths` alone has it. One document a sequence by default.
   */
  readonly starts?: Tensor;
  /** Drops probabilities; none by default. */
  readonly dropout?: DropoutMask;
}

/** Elements of a row of qkv: query heads, key heads, value heads. */
export function qkvWidth({ heads, kvHeads = heads, headSize }: Omit<AttentionShape, "sequences" | "length">): number {
  return (heads + 2 * kvHeads) * headSize;
}

/** The tensor that attention's forward leaves for its backward. */
export interface Kept {
  /** What it holds, for error messages. */
  readonly name: string;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
}

/**
 * One way to compute attention. With R = sequences * length: out, dout [R, heads * headSize]; qkv, dqkv
 * [R, {@link qkvWidth}], each row the query heads, the key heads, the value heads.
 */
export interface AttentionWay {
  /** `composed`, or the file of the kernels. */
  readonly name: string;
  /** Whether it computes this shape correctly on such a device. Says nothing about speed. */
  supports(info: GpuInfo, shape: AttentionShape): boolean;
  /** What the forward leaves for the backward besides its output, for operands of `dtype`. */
  keeps(shape: AttentionShape, dtype: DType): Kept;
  /** Writes `out` and `kept`. */
  forward(out: Tensor, kept: Tensor, qkv: Tensor, shape: AttentionShape, masks: AttentionMasks): void;
  /** Writes `dqkv`; `out` and `kept` as the forward left them, and so they stay; the masks of the forward. */
  backward(
    dqkv: Tensor,
    dout: Tensor,
    out: Tensor,
    qkv: Tensor,
    kept: Tensor,
    shape: AttentionShape,
    masks: AttentionMasks,
  ): void;
}
