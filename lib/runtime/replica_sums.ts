/**
 * Sums over replicas: the gradients of a stage, added up over its copies, while the rank goes on with its actions. Each replica adds up a
 * piece of its own and sends the sum to the others (reduce-scatter, then all-gather), so 2 (R - 1) / R of the bytes leave
 * each of R replicas, and all have the same bits.
 */
import { add } from "../ops/elementwise.ts";
import { empty, release, type Tensor, view } from "../tensor.ts";
import { bucketsOf, lengthOf, type Piece } from "./pieces.ts";
import type { Transport } from "./transport.ts";

/** The most elements of a piece that travel in one message: 4 MiB. */
export const bucketLength = 2 ** 20;

/** One replica's way to the others that have the same stages. */
export interface Replica {
  /** Of which copy it is, from 0. */
  readonly replica: number;
  /** By replica the peer that has the same stages, its own included. */
  readonly replicas: readonly number[];
  readonly transport: Pick<Transport, "send" | "receive">;
}

/** Tensors to be added up over replicas, and by whom. */
export interface Summand {
  /** Flat, f32; becomes the sum, but for what is not `gathered`. */
  readonly tensor: Tensor;
  /** What each replica adds up. */
  readonly pieces: readonly Piece[];
  /** Whether each replica is to have the whole sum, and not its own piece of it alone. */
  readonly gathered: boolean;
  /** The first of the numbers of its messages, see {@link messagesOf}; they are unique between two replicas in a step. */
  readonly id: number;
}

/** The number of the message that brings the sum of a bucket, whose first number is `id`. No edge of a program has such. */
export function gatherNumber(id: number): number {
  return -2 - id;
}

/** How many numbers the messages of a summand take, from its `id` on: two for each bucket. */
export function messagesOf({ pieces }: Pick<Summand, "pieces">, most = bucketLength): number {
  return 2 * bucketsOf(pieces, most).length;
}

/** Sums under way. */
export interface Sums {
  /** Waits until the sums are there; fails where a replica has failed. */
  ended(): Promise<void>;
  /** From now on nothing is submitted any more: the step has failed. */
  callOff(): void;
  /** Gives their memory back: when they are over. */
  release(): void;
}

/** When the sum of a stage's gradients over replicas was made: milliseconds of the host since its rank began the step. */
export interface SumTime {
  /** Whose gradients. */
  readonly stage: number;
  /** When its last W or B was submitted, which it waits for. */
  readonly begin: number;
  /** When all that the rank receives of it was there. */
  readonly end: number;
}

/** A stage's sum under way. */
export interface SumUnderWay {
  readonly sums: Sums;
  /** Waits until it is over. */
  ended(): Promise<SumTime>;
}

/**
 * Begins the sums of tensors of one device, which are complete and stay as they are until then. All memory is taken here, and all is
 * recorded: what follows, whenever messages come in, allocates nothing. So it may come while the rank waits with a recording of
 * its own, whose memory would be handed out again, and the ledger says the same in every run.
 */
export function beginSums(own: Replica, summands: readonly Summand[], most = bucketLength): Sums {
  const buckets = summands.flatMap(({ tensor, pieces, gathered, id }) =>
    bucketsOf(pieces, most).map((bucket, at) => prepare(own, { tensor, pieces: bucket, gathered, id: id + 2 * at }))
  );
  const [first] = summands;
  first?.tensor.device.submit(); // the copies of what leaves
  // On dry devices messages are on their way, and take memory, for as long as they may where another replica is late.
  let isHeld = first?.tensor.device.gpu.info.dry ?? false;
  const post = () => buckets.forEach((bucket) => bucket.post());
  if (!isHeld) post();
  const runs = buckets.map(({ record }) => record());
  let isOff = false;
  const over = Promise.all(runs.map((run) => run(() => isOff))).then(() => {});
  over.catch(() => {}); // the rank may fail before it asks
  return {
    ended() {
      if (isHeld) post();
      isHeld = false;
      return over;
    },
    callOff: () => void (isOff = true),
    release: () => buckets.forEach((bucket) => bucket.release()),
  };
}

/** One bucket, whose first messages are recorded. */
interface Bucket {
  /** Sends them off; to be called once they are submitted. */
  post(): void;
  /** Records the sum and what is sent of it. What it returns runs both, when the others' parts have come. */
  record(): (isOff: () => boolean) => Promise<void>;
  release(): void;
}

function prepare({ replica, replicas, transport }: Replica, { tensor, pieces, gathered, id }: Summand): Bucket {
  const { device } = tensor;
  const [scattered, gathers] = [-1 - id, gatherNumber(id)];
  const part = ({ start, end }: Piece) => view(tensor, [end - start], 4 * start);
  const others = pieces.flatMap((piece, at) =>
    at !== replica && lengthOf(piece) > 0 ? [{ peer: replicas[at], own: part(piece) }] : []
  );
  const posts = others.map(({ peer, own }) => transport.send(peer, scattered, own));
  const mine = lengthOf(pieces[replica]) > 0 ? part(pieces[replica]) : undefined;
  /** Whom the sum of the own piece is made with, and goes to. */
  const partners = mine ? replicas.filter((_, at) => at !== replica) : [];
  const room = () => empty(device, mine!.shape, "workspace");
  const arriving = partners.map((peer) => ({ peer, part: room() })), sum = mine && room();
  const post = () => posts.forEach((each) => each());
  return {
    post,
    record() {
      let commands: GPUCommandBuffer | undefined, sends: (() => void)[] = [];
      if (mine) {
        const total = recordSum(
          replicas.map((_, at) => at === replica ? mine : arriving[at < replica ? at : at - 1].part),
          mine,
          sum!,
        );
        device.copy(total.storage.buffer, total.offset, mine.storage.buffer, mine.offset, mine.bytes);
        if (gathered) sends = partners.map((peer) => transport.send(peer, gathers, total));
        commands = device.finishAside();
      }
      return async (isOff) => {
        const scatter = async () => {
          await Promise.all(arriving.map(({ peer, part }) => transport.receive(peer, scattered, part)));
          if (isOff() || !commands) return;
          device.submit(commands);
          sends.forEach((send) => send());
        };
        // What others add up may come before: its own part of it has left.
        const gather = gathered ? others.map(({ peer, own }) => transport.receive(peer, gathers, own)) : [];
        await Promise.all([scatter(), ...gather]);
      };
    },
    release: () => release(...others.map(({ own }) => own), ...arriving.map(({ part }) => part), mine, sum),
  };
}

/**
 * Records the sum of `parts`, in their order, and returns where it is: in `room`, or in a part that has been added already. No kernel may
 * read and write one buffer, so what is written is never of the buffer of `mine`, which the others' pieces are in as well.
 */
function recordSum([first, ...others]: readonly Tensor[], mine: Tensor, room: Tensor): Tensor {
  let total = first, free = room;
  for (const part of others) {
    add(free, total, part);
    const spent = [total, part].find((each) => each !== mine)!;
    [total, free] = [free, spent];
  }
  return total;
}
