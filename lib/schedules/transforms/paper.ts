import type { Action } from "../schedule.ts";
import { pendingWeights } from "./pending.ts";

/**
 * The order of weight gradients in public code of the models, schedules and modes of the 2BP paper (arXiv 2405.18047), whose owner
 * could not be established: none before the cool-down, one after each input gradient of the cool-down, and then all that is left, of
 * each stage in one W. Naive and GPipe run all of them at the end.
 *
 * What the cool-down of any other schedule is, is this project's reading. A rank's begins after its last forward. A schedule has
 * one if it has the phases that go before it: a warm-up (some rank starts with two forwards) and a steady one (some rank runs
 * a forward after a backward). Naive, whose micro-batches pass one by one, has no warm-up. GPipe has no steady phase; there a W
 * after each I would delay what other ranks wait for.
 *
 * @param lists For each rank its actions F and B (and R, which stay), each B of which becomes its I.
 * @param width The most micro-batches that the W at the end take.
 * @returns For each rank its list of F, I and W.
 */
export function paperOrder(lists: readonly (readonly Action[])[], width: number): Action[][] {
  const isWarm = lists.some(([first, second]) => first?.kind === "F" && second?.kind === "F");
  const isSteady = lists.some((list) => list.some(({ kind }, at) => kind === "F" && list[at - 1]?.kind === "B"));
  return lists.map((list) => {
    const coolDown = isWarm && isSteady ? list.findLastIndex(({ kind }) => kind === "F") : list.length;
    const pending = pendingWeights();
    const result: Action[] = [];
    for (const [at, { kind, stage, microbatches }] of list.entries()) {
      result.push({ kind: kind === "B" ? "I" : kind, stage, microbatches });
      if (kind === "F" || kind === "R") continue;
      pending.add(stage, microbatches[0]);
      if (at > coolDown) result.push(pending.next(1)!);
    }
    for (let w = pending.next(width); w; w = pending.next(width)) result.push(w);
    return result;
  });
}
