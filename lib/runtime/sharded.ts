/** ZeRO stage 1 (Rajbhandari et al., arXiv 1910.02054): each replica updates a piece of the parameters, and gives it to the others. */
import { copyMasters } from "../layers/parameter_blocks.ts";
import { fill } from "../ops/elementwise.ts";
import { release, type Tensor, view } from "../tensor.ts";
import { bucketsOf, lengthOf, type Piece } from "./pieces.ts";
import { bucketLength, gatherNumber } from "./replica_sums.ts";
import type { Rank } from "./run.ts";
import type { Share } from "./shares.ts";

/** The blocks of which a rank updates a piece. */
function shardsOf({ shares }: Rank): readonly Share[] {
  return [...shares.values()].flat().filter(({ gathered }) => !gathered);
}

/** Whether a rank updates pieces of its parameters, and not all of them. */
export function isSharded(rank: Rank): boolean {
  return shardsOf(rank).length > 0;
}

const part = (tensor: Tensor, { start, end }: Piece) => view(tensor, [end - start], 4 * start);

/** Records that the gradients that others update by are zero, as the optimizer leaves those of the own pieces. */
export function clearOthers(rank: Rank): void {
  for (const { tensor, pieces } of shardsOf(rank)) {
    for (const [replica, piece] of pieces.entries()) {
      if (replica === rank.replica || lengthOf(piece) === 0) continue;
      const gradients = part(tensor, piece);
      fill(gradients, 0);
      release(gradients);
    }
  }
}

/**
 * Gives the own pieces of the parameters to the other replicas, once their update is submitted, and waits for theirs. What it returns is to be
 * submitted then: in mixed precision the copies that kernels read.
 */
export async function gatherParameters(rank: Rank): Promise<GPUCommandBuffer | undefined> {
  const { device, transport, replica, replicas } = rank, shards = shardsOf(rank);
  const posts: (() => void)[] = [], arriving: { peer: number; id: number; target: Tensor }[] = [];
  for (const { block: { masters }, pieces, id } of shards) {
    for (const [at, bucket] of bucketsOf(pieces, bucketLength).entries()) {
      const number = gatherNumber(id + 2 * at);
      for (const [other, peer] of replicas.entries()) {
        if (other === replica) continue;
        if (lengthOf(bucket[replica]) > 0) {
          const own = part(masters, bucket[replica]);
          posts.push(transport.send(peer, number, own));
          release(own);
        }
        if (lengthOf(bucket[other]) > 0) arriving.push({ peer, id: number, target: part(masters, bucket[other]) });
      }
    }
  }
  device.submit();
  posts.forEach((post) => post());
  await Promise.all(arriving.map(({ peer, id, target }) => transport.receive(peer, id, target)));
  release(...arriving.map(({ target }) => target));
  copyMasters(shards.map(({ block }) => block));
  return device.finish();
}
