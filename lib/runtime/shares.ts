/** How the blocks of a stage are shared by the replicas that have them. */
import type { Parameter } from "../layers/parameter.ts";
import type { ParameterBlock } from "../layers/parameter_blocks.ts";
import { alignment } from "../memory.ts";
import { bytesOf, sizeOf } from "../tensor.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import { type Piece, piecesOf } from "./pieces.ts";
import { messagesOf, type Summand } from "./replica_sums.ts";

/**
 * A block whose gradients are added up over replicas. Where they are not gathered each replica has the sum of its own piece, keeps the
 * moments of that and updates it, and then parameters are gathered: ZeRO stage 1.
 */
export interface Share extends Summand {
  readonly block: ParameterBlock;
}

/** How a rank's blocks are shared. */
export interface Sharing {
  readonly replicas: number;
  /** What updates a block. */
  readonly specOf: (block: ParameterBlock) => OptimizerSpec;
  /** Whether each replica updates a piece. */
  readonly sharded: boolean;
  /** Parameters that are tied to others: their sums over ranks need all of a gradient, so their blocks are updated everywhere. */
  readonly tied: readonly Parameter[];
  /** The first number of their messages. */
  readonly id: number;
}

/**
 * The shares of the stages of a rank, by stage.
 *
 * @param stages The blocks of each stage, by its number.
 */
export function sharesOf(
  stages: ReadonlyMap<number, { readonly blocks: readonly ParameterBlock[] }>,
  { replicas, specOf, sharded, tied, id }: Sharing,
): ReadonlyMap<number, readonly Share[]> {
  let next = id;
  return new Map([...stages].map(([stage, { blocks }]) => {
    const shares = blocks.map((block): Share => {
      const grain = alignment / bytesOf([1], block.values.dtype);
      const starts = specOf(block).name === "muon" ? startsOfMatrices(block) : [];
      const pieces = piecesOf(sizeOf(block.gradients.shape), replicas, grain, starts);
      const gathered = !sharded || block.parameters.some((parameter) => tied.includes(parameter));
      const share = { block, tensor: block.gradients, pieces, gathered, id: next };
      next += messagesOf(share);
      return share;
    });
    return [stage, shares];
  }));
}

/** Where matrices start, and at the end where the last of them ends: what takes them whole cannot be cut elsewhere. */
function startsOfMatrices({ starts, decayed }: ParameterBlock): readonly number[] {
  return [...starts.filter((start) => start < decayed), decayed];
}

/** The piece of a block that a replica updates: all of it, where that is shared in no other way. */
export function updatedPiece({ gradients }: ParameterBlock, share: Share | undefined, replica: number): Piece {
  return share && !share.gathered ? share.pieces[replica] : { start: 0, end: sizeOf(gradients.shape) };
}
