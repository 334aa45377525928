/** What a rank keeps of a sequence that is made token by token, between the passes of its pieces. */
import type { Past } from "../layers/past.ts";
import { empty, release, type Tensor, writeArray } from "../tensor.ts";
import type { Rank, Run } from "./run.ts";

/** The piece of a sequence that a pass is of: plain data. */
export interface Piece {
  /** Tokens before it. */
  readonly position: number;
  /** Tokens of the whole sequence at most. */
  readonly capacity: number;
  /** Whether the outputs are wanted: without, the pass is run for what layers keep alone. */
  readonly wanted: boolean;
}

/** What is kept on a rank's device; nothing while no sequence is made. */
export interface KeptSequence {
  /** The number of tokens before the piece, u32 [1]. */
  before?: Tensor;
  /** Of each layer that keeps something, by stage, path and name. */
  readonly rows: Map<string, Tensor>;
}

/** Writes where a piece stands to the rank's device. */
export function beginPiece({ kept, device }: Rank, { position }: Piece): void {
  kept.before ??= empty(device, [1], "activations", "u32");
  writeArray(kept.before, Uint32Array.of(position));
}

/** What came before, for the layers of a stage; none in a step or an evaluation. */
export function pastOf({ piece, rank: { kept, device } }: Run, stage: number): Past | undefined {
  if (!piece) return undefined;
  const { position, capacity } = piece;
  return {
    position,
    capacity,
    before: kept.before!,
    rows(name, width, dtype) {
      const key = `${stage}.${name}`;
      let rows = kept.rows.get(key);
      if (!rows) kept.rows.set(key, rows = empty(device, [capacity, width], "activations", dtype));
      return rows;
    },
  };
}

/** Gives back what a rank keeps. */
export function releaseSequence({ kept }: Rank): void {
  release(kept.before, ...kept.rows.values());
  forgetSequence(kept);
}

/** Forgets what has been given back already, with all that was handed out since. */
export function forgetSequence(kept: KeptSequence): void {
  kept.before = undefined;
  kept.rows.clear();
}
