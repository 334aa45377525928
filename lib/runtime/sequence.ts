/** What a rank keeps of a sequence that is made token by token, between the passes of its pieces. */
import type { Past } from "../layers/past.ts";
import { empty, release, writeArray } from "../tensor.ts";
import type { KeptSequence, Piece, Rank, Run } from "./run.ts";

/** Writes where a piece stands to the rank's device. */
export function beginPiece({ kept, device }: Rank, { position }: Piece): void {
  kept.before ??= empty(device, [1], "activations", "u32");
  writeArray(kept.before, Uint32Array.of(position));
}

/** What came before, for the layers of a stage; none in a step or an evaluation. */
export function pastOf({ piece, rank: { kept, device } }: Run, stage: number): Past | undefined {
  if (!piece) return undefined;
  const { position, capacity } = piece;
  const tensor: Past["fixed"] = (name, shape, dtype) => {
    const key = `${stage}.${name}`;
    let known = kept.tensors.get(key);
    if (!known) kept.tensors.set(key, known = empty(device, shape, "activations", dtype));
    return known;
  };
  return {
    position,
    capacity,
    before: kept.before!,
    rows: (name, width, dtype) => tensor(name, [capacity, width], dtype),
    fixed: tensor,
  };
}

/** Gives back what a rank keeps. */
export function releaseSequence({ kept }: Rank): void {
  release(kept.before, ...kept.tensors.values());
  forgetSequence(kept);
}

/** Forgets what has been given back already, with all that was handed out since. */
export function forgetSequence(kept: KeptSequence): void {
  kept.before = undefined;
  kept.tensors.clear();
}
