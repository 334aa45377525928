/** Messages on their way: how long what carries them is in use. */
import { isMessage, outputOf, type Program } from "../program.ts";

/**
 * By node what its rank's messages lie in when the action has ended and the next is recorded, where devices are slower than their
 * hosts: a rank records what it can until it waits for a message, all ranks do, and only then do the messages come, in the order in
 * which they were sent, each to be taken by its receiver when that gets there. So it is in a step on dry devices.
 *
 * @param sent What the message lies in that an action sends.
 */
export function stagedAfter(program: Program, sent: (node: number) => number): Float64Array {
  const { devices, first, rank: rankOf, waits, from, to } = program, count = first[devices];
  const result = new Float64Array(count), staged = new Float64Array(devices);
  const next = first.slice(0, devices), arrived = new Uint8Array(from.length);
  /** Edges, in the order in which their messages were sent. */
  const underway: number[] = [];
  const run = (rank: number) => {
    for (let node = next[rank]; node < first[rank + 1]; node++, next[rank]++) {
      for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
        if (!isMessage(program, edge)) continue;
        if (!arrived[edge]) return;
        staged[rankOf[from[edge]]] -= sent(from[edge]);
      }
      const output = outputOf(program, node);
      if (output >= 0 && isMessage(program, output)) {
        staged[rank] += sent(node);
        underway.push(output);
      }
      result[node] = staged[rank];
    }
  };
  for (let rank = 0; rank < devices; rank++) run(rank);
  for (let at = 0; at < underway.length; at++) {
    const edge = underway[at];
    arrived[edge] = 1;
    run(rankOf[to[edge]]);
  }
  return result;
}
