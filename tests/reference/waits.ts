/** Who waits for whom in a step, found by looking at every pair of actions. */
import type { Action, Schedule } from "../../lib/schedules/schedule.ts";

/** A wait: what has to be over, for what, and what passes from one to the other. */
export interface Wait {
  from: string;
  to: string;
  passes: "activation" | "gradient" | "tied gradient" | "nothing";
}

/** `rank:index` of an action. */
export const nameOf = (rank: number, index: number): string => `${rank}:${index}`;

/** Every wait between actions of different stages, and at the end of the step; `reduceFrom` as ranks of ranks. */
export function everyWait(
  { actions }: Schedule,
  reduceFrom: readonly (readonly number[])[],
  together: boolean,
): Wait[] {
  const all = actions.flatMap((list, rank) => list.map((action, index) => ({ action, name: nameOf(rank, index) })));
  const waits: Wait[] = [];
  for (const one of all) {
    for (const other of all) {
      const passes = passesFrom(one.action, other.action);
      if (passes) waits.push({ from: one.name, to: other.name, passes });
    }
  }
  for (const [rank, senders] of reduceFrom.entries()) {
    for (const sender of senders) {
      const last = actions[sender].length - 1;
      if (last >= 0) waits.push({ from: nameOf(sender, last), to: `reduce ${rank}`, passes: "tied gradient" });
    }
  }
  for (const rank of actions.keys()) {
    for (const other of actions.keys()) {
      if (together && other !== rank) waits.push({ from: `reduce ${other}`, to: `update ${rank}`, passes: "nothing" });
    }
  }
  return waits;
}

function passesFrom(one: Action, other: Action): "activation" | "gradient" | undefined {
  if (one.microbatches[0] !== other.microbatches[0] || one.kind === "W" || other.kind === "W") return undefined;
  if (one.kind === "F") return other.kind === "F" && other.stage === one.stage + 1 ? "activation" : undefined;
  return other.kind !== "F" && other.stage === one.stage - 1 ? "gradient" : undefined;
}

/** Whether a step could run its nodes in this order: each rank's list in order, and nothing before what it waits for. */
export function isRunnable({ actions }: Schedule, waits: readonly Wait[], order: readonly string[]): boolean {
  const at = new Map(order.map((name, position) => [name, position]));
  const nodes = actions.flatMap((list, rank) => [
    ...list.map((_, index) => nameOf(rank, index)),
    `reduce ${rank}`,
    `update ${rank}`,
  ]);
  if (at.size !== order.length || order.length !== nodes.length || !nodes.every((name) => at.has(name))) return false;
  const inOrder = actions.every((list, rank) => {
    const own = [...list.map((_, index) => nameOf(rank, index)), `reduce ${rank}`, `update ${rank}`];
    return own.every((name, index) => index === 0 || at.get(own[index - 1])! < at.get(name)!);
  });
  return inOrder && waits.every(({ from, to }) => at.get(from)! < at.get(to)!);
}
