/**
 * The search's own, compact view of a schedule with one stage a rank. Micro-batches cost the same, so only the order of
 * kinds on each rank matters: by exchange, the k-th F, I or W of a rank may always be that of micro-batch k.
 *
 * @module
 */

import { UserError } from "../errors.ts";
import { actionMaker, type Schedule } from "./actions.ts";
import type { Costs } from "./costs.ts";
import type { Memory } from "./memory.ts";
import { linearPlacement } from "./placement.ts";

/** F, I and W as numbers. */
export const kindsOfSearch = ["F", "I", "W"] as const;
/** Index of F. */
export const F = 0;
/** Index of I. */
export const I = 1;
/** Index of W. */
export const W = 2;

/** For each rank the order of its kinds. */
export type Order = Uint8Array[];

/** Costs, memory and limits by rank. */
export interface Problem {
  /** Ranks, N. */
  devices: number;
  /** Micro-batches, M. */
  microbatches: number;
  /** Time of an F, I and W on each rank. */
  time: [number, number, number][];
  /** Time of an activation from rank r to r + 1. */
  down: number[];
  /** Time of a gradient from rank r to r - 1. */
  up: number[];
  /** Time of each rank after its last action. */
  tail: number[];
  /** What an F, I and W adds to what a rank holds while it runs, beyond what stays. */
  workspace: [number, number, number][];
  /** What starting an F, I and W takes. */
  take: [number, number, number][];
  /** What ending an F, I and W gives back. */
  give: [number, number, number][];
  /** What each rank may hold in activations, derivatives and workspace. */
  cap: number[];
}

/**
 * Sets up a problem.
 *
 * @throws {UserError} When not even one micro-batch fits under the cap.
 */
export function problemOf(devices: number, microbatches: number, costs: Costs, memory: Memory, cap: number): Problem {
  const make = actionMaker(microbatches);
  const ranks = linearPlacement(devices);
  const stages = ranks.map(memory);
  const problem: Problem = {
    devices,
    microbatches,
    time: ranks.map((r) =>
      kindsOfSearch.map((kind) => costs.duration(make(kind, r, 0), r, 0)) as [number, number, number]
    ),
    down: ranks.map((r) => r < devices - 1 ? costs.transfer?.(r, r + 1, "F") ?? 0 : 0),
    up: ranks.map((r) => r > 0 ? costs.transfer?.(r, r - 1, "I") ?? 0 : 0),
    tail: ranks.map((r) => costs.tail?.(r) ?? 0),
    workspace: stages.map(({ workspace }) => [workspace?.F ?? 0, workspace?.I ?? 0, workspace?.W ?? 0]),
    take: stages.map(({ activations, derivatives }) => [activations, derivatives, 0]),
    give: stages.map((
      { activations, derivatives, released = 0 },
    ) => [0, released, activations - released + derivatives]),
    cap: stages.map(({ parameters = 0, gradients = 0, optimizer = 0, transfer = 0 }) =>
      cap - parameters - gradients - optimizer - transfer
    ),
  };
  stages.forEach((stage, r) => {
    const [a, d] = problem.take[r];
    const [f, i, w] = problem.workspace[r];
    const least = Math.max(a + f, a + d + i, a + d - (stage.released ?? 0) + w);
    if (least > problem.cap[r]) {
      throw new UserError(
        `A cap of ${cap} is too small: device ${r} needs ${least + cap - problem.cap[r]} for a single micro-batch`,
      );
    }
  });
  return problem;
}

/** Whether starting a kind would hold too much, with so many F, I and W already run on the rank. */
export function exceeds(problem: Problem, rank: number, kind: number, f: number, i: number, w: number): boolean {
  const take = problem.take[rank];
  const give = problem.give[rank];
  const cap = problem.cap[rank] + 1e-9;
  const held = f * take[F] + i * (take[I] - give[I]) - w * give[W] + take[kind];
  if (held + problem.workspace[rank][kind] > cap) return true;
  // Once every W that is pending has run, the next I must still fit, or the rank is stuck.
  return kind === F && (f + 1 - i) * take[F] + take[I] + problem.workspace[rank][I] > cap;
}

/** Whether every rank keeps F before I before W and its cap. */
export function feasible(problem: Problem, rank: number, order: Uint8Array): boolean {
  const ran = [0, 0, 0];
  for (const kind of order) {
    if (kind !== F && ran[kind] >= ran[kind - 1]) return false;
    if (exceeds(problem, rank, kind, ran[F], ran[I], ran[W])) return false;
    ran[kind]++;
  }
  return true;
}

/** Makespan of an order, or Infinity where it deadlocks. */
export function evaluate(problem: Problem, order: Order): number {
  const { devices, microbatches, time, down, up, tail } = problem;
  const ended = [0, 1].map(() => Array.from({ length: devices }, () => new Float64Array(microbatches)));
  const ran = Array.from({ length: devices }, () => [0, 0, 0]);
  const free = new Float64Array(devices);
  const position = new Int32Array(devices);
  for (let moved = true; moved;) {
    moved = false;
    // Activations flow down and gradients up: alternate sweeps move both as far as they go.
    for (let turn = 0; turn < 2 * devices; turn++) {
      const rank = turn < devices ? turn : 2 * devices - 1 - turn;
      const list = order[rank];
      while (position[rank] < list.length) {
        const kind = list[position[rank]];
        const k = ran[rank][kind];
        let start = free[rank];
        if (kind === F && rank > 0) {
          if (ran[rank - 1][F] <= k) break;
          start = Math.max(start, ended[F][rank - 1][k] + down[rank - 1]);
        } else if (kind === I && rank < devices - 1) {
          if (ran[rank + 1][I] <= k) break;
          start = Math.max(start, ended[I][rank + 1][k] + up[rank + 1]);
        }
        free[rank] = start + time[rank][kind];
        if (kind !== W) ended[kind][rank][k] = free[rank];
        ran[rank][kind]++;
        position[rank]++;
        moved = true;
      }
    }
  }
  let makespan = 0;
  for (let rank = 0; rank < devices; rank++) {
    if (position[rank] < order[rank].length) return Infinity;
    makespan = Math.max(makespan, free[rank] + tail[rank]);
  }
  return makespan;
}

/** The schedule of an order. */
export function scheduleOf({ devices, microbatches }: Problem, order: Order, name: string): Schedule {
  const make = actionMaker(microbatches);
  const actions = order.map((list, rank) => {
    const ran = [0, 0, 0];
    return Array.from(list, (kind) => make(kindsOfSearch[kind], rank, ran[kind]++));
  });
  const placement = linearPlacement(devices);
  return { name, devices, stages: devices, microbatches, placement, actions, twoStage: true, width: 1 };
}
