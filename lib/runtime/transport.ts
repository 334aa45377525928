/** How ranks talk to one another: by rank number, so that the other may be in this process, in another, or on another machine. */
import type { Tensor } from "../tensor.ts";

/**
 * One rank's way to the others. What is sent in a step is received in it: whoever sends knows the receiver's rank and the number
 * of the edge in the step's `Program`, and the receiver knows both too. So there are no other names, and nothing is looked up.
 *
 * In one process it is `transports/in_process.ts`, between processes `transports/mpi`, which sends from mapped staging buffers with
 * the edge in the tag. There, too, an agreement is records from each to each and a sum is messages, see `reduceByMessages`, since
 * collective calls of MPI cannot be called off when a rank fails.
 */
export interface Transport {
  /**
   * Records the copy of `tensor` out of this rank's device. To be called as soon as that is submitted, and never after a step that
   * failed: the returned function, which sends it off when the copy has been made. Nothing waits, and the tensor may be released at
   * once. `id` is unique among the messages of a step from this rank to rank `to`.
   */
  send(to: number, id: number, tensor: Tensor): () => void;
  /**
   * Waits for the message, then writes it into `target`, ahead of whatever is submitted to its device afterwards. Nothing is allocated on
   * that device: sums over replicas wait beside the rank's actions. A rank may have several waits open, those of its sums, when
   * it fails itself: after `recover` nothing is written for them any more.
   */
  receive(from: number, id: number, target: Tensor): Promise<void>;
  /**
   * Begins the sum of `tensor` over `ranks`, of which this is one; all call it with the same ranks in the same order, and get the
   * same bits. Records the copy out of the device. `id` is unique among the sums of a step.
   */
  reduce(ranks: readonly number[], id: number, tensor: Tensor): Reduction;
  /**
   * Tells all ranks a small record, plain data, and waits for theirs: all get the same list, by rank. Every rank of the
   * pipeline calls it as often as the others.
   */
  agree<Told>(own: Told): Promise<readonly Told[]>;
  /** Ends every wait of the other ranks with this error: this one has failed, and what they wait for will not come. */
  fail(error: RankError): void;
  /** After a step that failed, once its ranks have ended: forgets the failure, and messages that nobody has received. */
  recover(): Promise<void>;
  /** Gives back what it holds. */
  close(): void;
}

/** The sum of a tensor over some ranks, under way. */
export interface Reduction {
  /** Sends this rank's part off; to be called once its copy is submitted. */
  post(): void;
  /** Waits for the parts of the others. */
  arrive(): Promise<void>;
  /** Records that the tensor becomes the sum; to be submitted once all parts are there. */
  record(): void;
  /** Gives back the memory of the others' parts. */
  release(): void;
}

/** A failed rank, named in the message; a rank that waited for it fails with the same error. */
export class RankError extends Error {
  override name = "RankError";
}

/** A loss, a gradient or a logit that is no finite number: nothing is broken, but for the values. */
export class NotFiniteError extends RankError {}
