/** A step that tries out all that a stage can be asked to do, with shapes alone: what its memory model is read from. */
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import { type Bytes, categories } from "../memory.ts";
import { type Action, formatAction, type Kind, type Schedule } from "../schedules/schedule.ts";

/** Micro-batches, each run in another way. */
export interface Tried {
  /** Its W come when all its I are over. */
  readonly alone: number;
  /** Its backward is whole. */
  readonly whole: number;
  /** Each W comes right after its I; the first again where no two stages of a rank are neighbours, who alone would notice. */
  readonly atOnce: number;
  /** Two, three and so on, which share their W. */
  readonly groups: readonly (readonly number[])[];
  /** An R runs ahead of its I, and of its B: those of `alone` and `whole` where nothing is recomputed. */
  readonly ahead: { readonly I: number; readonly B: number };
}

/** The micro-batches one after another, on all stages, with groups of up to `width`; with `recomputes` some stage does so in its I. */
export function trial(
  placement: readonly number[],
  width: number,
  recomputes: boolean,
): { schedule: Schedule; tried: Tried } {
  const hasNeighbours = placement.some((rank, stage) => rank === placement[stage + 1]);
  const [alone, whole, atOnce] = [0, 1, hasNeighbours ? 2 : 0];
  const groups: number[][] = [];
  let next = hasNeighbours ? 3 : 2;
  for (let size = 2; size <= width; next += size++) groups.push(Array.from({ length: size }, (_, at) => next + at));
  const ahead = recomputes ? { I: next, B: next + 1 } : { I: alone, B: whole };
  const phases: (readonly [Kind, ...number[]])[][] = [
    [["F", alone]],
    [["I", alone]],
    [["W", alone]],
    [["F", whole]],
    [["B", whole]],
  ];
  if (hasNeighbours) phases.push([["F", atOnce]], [["I", atOnce], ["W", atOnce]]);
  for (const group of groups) {
    for (const kind of ["F", "I"] as const) for (const microbatch of group) phases.push([[kind, microbatch]]);
    phases.push([["W", ...group]]);
  }
  if (recomputes) {
    phases.push([["F", ahead.I]], [["R", ahead.I]], [["I", ahead.I]], [["W", ahead.I]]);
    phases.push([["F", ahead.B]], [["R", ahead.B]], [["B", ahead.B]]);
  }
  const actions: Action[][] = Array.from({ length: Math.max(...placement) + 1 }, () => []);
  for (const phase of phases) {
    const isForward = phase[0][0] === "F";
    for (let at = 0; at < placement.length; at++) {
      const stage = isForward ? at : placement.length - 1 - at;
      for (const [kind, ...microbatches] of phase) actions[placement[stage]].push({ kind, stage, microbatches });
    }
  }
  return { schedule: { name: "trial", placement, actions }, tried: { alone, whole, atOnce, groups, ahead } };
}

/** What an action took. */
export interface Taken {
  /** In use when it started. */
  readonly before: Bytes;
  /** By how much that has grown at its end. */
  readonly change: Bytes;
  /** The most that was needed beyond what was there before; messages, which come and go in their own time, left out. */
  readonly need: number;
  /** Of the messages that it sent. */
  readonly sent: number;
}

/** Looks up what an action took. */
export type TakenBy = (stage: number, kind: Kind, ...microbatches: number[]) => Taken;

/** What the actions of a step took, from the timelines of its ranks. */
export function takenIn(timelines: readonly (readonly LedgerPoint[])[]): TakenBy {
  const points = new Map<string, LedgerPoint[]>();
  for (const point of timelines.flat()) {
    const list = points.get(point.action);
    if (list) list.push(point);
    else points.set(point.action, [point]);
  }
  return (stage, kind, ...microbatches) => takenOf(points.get(formatAction({ kind, stage, microbatches }))!);
}

function takenOf(points: readonly LedgerPoint[]): Taken {
  const [{ categories: before }] = points, after = points[points.length - 1].categories;
  const own = ({ needed, categories: { transfer } }: LedgerPoint) => needed - transfer;
  const change = Object.fromEntries(
    categories.map((category) => [category, after[category] - before[category]]),
  ) as Bytes;
  let sent = 0, last = before.transfer;
  for (const { categories: { transfer } } of points) {
    sent += Math.max(0, transfer - last);
    last = transfer;
  }
  return { before, change, need: Math.max(...points.map(own)) - own(points[0]), sent };
}
