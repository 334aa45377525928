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

/** Every wait between actions of different stages, and at the end of the step; `reduceFrom` as ranks of ranks, `sums` as stages. */
export function everyWait(
  { actions }: Schedule,
  reduceFrom: readonly (readonly number[])[],
  together: boolean,
  sums: readonly number[] = [],
): Wait[] {
  const all = actions.flatMap((list, rank) => list.map((action, index) => ({ action, name: nameOf(rank, index) })));
  const waits: Wait[] = [];
  for (const one of all) {
    for (const other of all) {
      const passes = passesFrom(one.action, other.action);
      if (passes) waits.push({ from: one.name, to: other.name, passes });
    }
  }
  // The last of a stage's W and B is the one that no other of them follows.
  const closing = ({ kind }: Action) => kind === "W" || kind === "B";
  const ranksOf = new Map<number, number>();
  for (const [rank, list] of actions.entries()) {
    for (const [index, action] of list.entries()) {
      if (!closing(action) || !sums.includes(action.stage)) continue;
      if (list.some((other, later) => later > index && closing(other) && other.stage === action.stage)) continue;
      ranksOf.set(action.stage, rank);
      waits.push({ from: nameOf(rank, index), to: `sum ${action.stage}`, passes: "nothing" });
      waits.push({ from: `sum ${action.stage}`, to: `reduce ${rank}`, passes: "nothing" });
    }
  }
  for (const [rank, senders] of reduceFrom.entries()) {
    for (const sender of senders) {
      const last = actions[sender].length - 1;
      if (last >= 0) waits.push({ from: nameOf(sender, last), to: `reduce ${rank}`, passes: "tied gradient" });
      for (const [stage, own] of ranksOf) {
        if (own === sender) waits.push({ from: `sum ${stage}`, to: `reduce ${rank}`, passes: "tied gradient" });
      }
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
export function isRunnable(
  { actions }: Schedule,
  waits: readonly Wait[],
  order: readonly string[],
  sums: readonly number[] = [],
): boolean {
  const at = new Map(order.map((name, position) => [name, position]));
  const nodes = [
    ...actions.flatMap((list, rank) => [
      ...list.map((_, index) => nameOf(rank, index)),
      `reduce ${rank}`,
      `update ${rank}`,
    ]),
    ...sums.map((stage) => `sum ${stage}`),
  ];
  if (at.size !== order.length || order.length !== nodes.length || !nodes.every((name) => at.has(name))) return false;
  const inOrder = actions.every((list, rank) => {
    const own = [...list.map((_, index) => nameOf(rank, index)), `reduce ${rank}`, `update ${rank}`];
    return own.every((name, index) => index === 0 || at.get(own[index - 1])! < at.get(name)!);
  });
  return inOrder && waits.every(({ from, to }) => at.get(from)! < at.get(to)!);
}
