/** Messages on the lines between ranks, which follow one another where costs say how long each holds its line. */
import { type Costs, lineOf } from "./costs.ts";
import type { Program } from "../program.ts";

/** When messages leave. */
export interface Lines {
  /** A node has ended, and sends what it gives, if that goes to another rank. */
  enter(node: number, end: number): void;
  /** When what passes along an edge leaves, whose node ended then: what is no action's output, at once. */
  left(edge: number, end: number): number;
  /** Forgets all messages. */
  clear(): void;
}

/**
 * The lines of a Program; undefined where messages do not slow each other. All messages of a line come from the list of one rank, so
 * that they are entered in the order in which they leave; which of them is needed first at the other end does not matter.
 */
export function linesOf({ devices, rank, from, to, what, output }: Program, costs: Costs): Lines | undefined {
  if (!costs.line) return undefined;
  /** By line when it is free, and by edge when its message leaves. */
  const free = new Map<number, number>(), leaves = new Float64Array(from.length);
  return {
    enter(node, end) {
      const edge = output[node];
      if (edge < 0 || rank[to[edge]] === rank[node]) return;
      const line = rank[node] * devices + rank[to[edge]], start = Math.max(end, free.get(line) ?? 0);
      leaves[edge] = start;
      free.set(line, start + lineOf(costs, what[edge], rank[node], rank[to[edge]]));
    },
    left: (edge, end) => Math.max(leaves[edge], end),
    clear() {
      free.clear();
      leaves.fill(0);
    },
  };
}
