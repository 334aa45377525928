/** Sums over ranks for transports that can send and receive. */
import { add } from "../../ops/elementwise.ts";
import { empty, release, type Tensor } from "../../tensor.ts";
import type { Reduction, Transport } from "../transport.ts";

/**
 * A sum in which every rank sends its part to all others and adds up all of them, in the order of `ranks`: each has the same bits.
 * Its messages have negative numbers, which no edge of a program has. `own` is the number of this rank.
 */
export function reduceByMessages(
  { send, receive }: Pick<Transport, "send" | "receive">,
  own: number,
  ranks: readonly number[],
  id: number,
  tensor: Tensor,
): Reduction {
  const message = -1 - id;
  const others = ranks.filter((rank) => rank !== own);
  const posts = others.map((rank) => send(rank, message, tensor));
  const parts = new Map(others.map((rank) => [rank, empty(tensor.device, tensor.shape, "workspace")]));
  return {
    post: () => posts.forEach((post) => post()),
    async arrive() {
      await Promise.all([...parts].map(([rank, part]) => receive(rank, message, part)));
    },
    record: () => sumInto([tensor], ranks.map((rank) => parts.get(rank) ?? tensor)),
    release: () => release(...parts.values()),
  };
}

/** Records that each of `targets` becomes the sum of `parts`, of which there are two or more, on one device. */
export function sumInto(targets: readonly Tensor[], [first, ...others]: readonly Tensor[]): void {
  const { device, shape } = first;
  let sum = first;
  for (const part of others) {
    const next = empty(device, shape, "workspace");
    add(next, sum, part);
    if (sum !== first) release(sum);
    sum = next;
  }
  for (const { storage, offset, bytes } of targets) device.copy(sum.storage.buffer, 0, storage.buffer, offset, bytes);
  release(sum);
}
