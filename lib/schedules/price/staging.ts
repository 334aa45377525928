/** Messages on their way: how long what carries them may be in use. */
import { isMessage, outputOf, type Program } from "../program.ts";

/** A message that may not have been received yet. */
interface Underway {
  /** The receiver's rank. */
  readonly to: number;
  /** The place of the action that receives it in its rank's list. */
  readonly at: number;
  readonly bytes: number;
}

/**
 * How much each rank's messages may take at most when an action has ended, by node, whatever the ranks' speeds: all that it has
 * sent, but for what it knows to be received. It knows that from the messages that it has received itself: who sent one had
 * received whatever comes earlier in his list, and knew what those before him knew (vector clocks: Fidge, 1988; Mattern, 1989).
 *
 * @param sent What an action takes for the message that it sends.
 */
export function stagedAfter(program: Program, sent: (node: number) => number): Float64Array {
  const { devices, first, order, rank: rankOf, waits, to } = program, count = first[devices];
  const result = new Float64Array(count);
  const underway: Underway[][] = Array.from({ length: devices }, () => []);
  /** Of each rank how many actions of every rank are over, as far as it knows. */
  const known = Array.from({ length: devices }, () => new Int32Array(devices));
  /** What the sender of a message knew, by edge. */
  const told = new Map<number, Int32Array>();
  for (const node of order) {
    if (node >= count) break; // the end of the step
    const rank = rankOf[node], knows = known[rank];
    for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
      if (!isMessage(program, edge)) continue;
      const news = told.get(edge)!;
      told.delete(edge);
      for (let other = 0; other < devices; other++) knows[other] = Math.max(knows[other], news[other]);
    }
    knows[rank] = node - first[rank] + 1;
    const left = underway[rank].filter(({ to, at }) => knows[to] <= at);
    const output = outputOf(program, node);
    if (output >= 0 && isMessage(program, output)) {
      told.set(output, knows.slice());
      const receiver = rankOf[to[output]];
      left.push({ to: receiver, at: to[output] - first[receiver], bytes: sent(node) });
    }
    underway[rank] = left;
    for (const { bytes } of left) result[node] += bytes;
  }
  return result;
}
