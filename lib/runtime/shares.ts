/** How the blocks of a stage are shared by the replicas that have them. */
import type { ParameterBlock } from "../layers/parameter_blocks.ts";
import { alignment } from "../memory.ts";
import { bytesOf, sizeOf } from "../tensor.ts";
import { piecesOf } from "./pieces.ts";
import { messagesOf, type Summand } from "./replica_sums.ts";

/** A block whose gradients are added up over replicas. */
export interface Share extends Summand {
  readonly block: ParameterBlock;
}

/**
 * The shares of the stages of a rank, by stage; their messages are numbered from `id` on.
 *
 * @param stages The blocks of each stage, by its number.
 */
export function sharesOf(
  stages: ReadonlyMap<number, { readonly blocks: readonly ParameterBlock[] }>,
  replicas: number,
  id: number,
): ReadonlyMap<number, readonly Share[]> {
  let next = id;
  return new Map([...stages].map(([stage, { blocks }]) => {
    const shares = blocks.map((block): Share => {
      const grain = alignment / bytesOf([1], block.values.dtype);
      const pieces = piecesOf(sizeOf(block.gradients.shape), replicas, grain);
      const share = { block, tensor: block.gradients, pieces, gathered: true, id: next };
      next += messagesOf(share);
      return share;
    });
    return [stage, shares];
  }));
}
