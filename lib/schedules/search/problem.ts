/**
 * The search's own, compact view of a schedule with one stage a rank. Micro-batches cost the same, so only the order of
 * kinds on each rank matters: by exchange, the k-th F, I or W of a rank may always be that of micro-batch k.
 *
 * @module
 */

import { UserError } from "../../errors.ts";
import { actionMaker, formatAction, type Schedule } from "../schedule.ts";
import { type Costs, durationOf, type Tail, tailsOf, transferOf, withTails } from "../price/costs.ts";
import { type Memory, stagesOf } from "../price/memory.ts";
import { linearPlacement } from "../generators/placement.ts";

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

/** Of an F, I and W. */
type Triple = [number, number, number];

/** Costs, memory and limits by rank. */
export interface Problem {
  /** Ranks, N. */
  devices: number;
  /** Micro-batches, M. */
  microbatches: number;
  /** Time of F, I and W on each rank. */
  time: Triple[];
  /** Time of an activation from rank r to r + 1. */
  down: number[];
  /** Time of a gradient from rank r to r - 1. */
  up: number[];
  /** What each rank needs after its last action. */
  tails: Tail[];
  /** What an F, I and W adds to what a rank holds while it runs, beyond what stays: workspace, and the message that it sends. */
  workspace: Triple[];
  /** The message of an F, I and W, which is held besides until the next action of the rank has ended. */
  sent: Triple[];
  /** What starting an F, I and W takes. */
  take: Triple[];
  /** What ending an F, I and W gives back. */
  give: Triple[];
  /** What each rank may hold in activations, derivatives, workspace and messages, with a little for rounding. */
  cap: number[];
  /** Times closer than this are equal but for rounding. */
  slack: number;
}

/**
 * Sets up a problem.
 *
 * @throws {UserError} For costs and memory that are none, costs that differ between micro-batches, and when not even one
 * micro-batch fits under the cap.
 */
export function problemOf(devices: number, microbatches: number, costs: Costs, memory: Memory, cap: number): Problem {
  const ranks = linearPlacement(devices);
  const stages = stagesOf(memory, devices);
  const time = timesOf(devices, microbatches, costs);
  const down = ranks.map((r) => r < devices - 1 ? transferOf(costs, r, r + 1, "F") : 0);
  const up = ranks.map((r) => r > 0 ? transferOf(costs, r, r - 1, "I") : 0);
  const sent = stages.map(({ messages }, r): Triple => [
    r < devices - 1 ? messages?.F ?? 0 : 0,
    r > 0 ? messages?.I ?? 0 : 0,
    0,
  ]);
  const sum = (list: readonly number[]) => list.reduce((total, each) => total + each, 0);
  const standing = stages.map(({ parameters = 0, gradients = 0, optimizer = 0, transfer = 0, losses = 0 }) =>
    parameters + gradients + optimizer + transfer + losses * microbatches
  );
  const problem: Problem = {
    devices,
    microbatches,
    time,
    down,
    up,
    tails: tailsOf(costs, devices),
    workspace: stages.map(({ workspace = {} }, r) => [
      (workspace.F ?? 0) + sent[r][F],
      (workspace.I ?? 0) + sent[r][I],
      workspace.W ?? 0,
    ]),
    sent,
    take: stages.map(({ activations, derivatives }) => [activations, derivatives, 0]),
    give: stages.map((
      { activations, derivatives, released = 0 },
    ) => [0, released, activations - released + derivatives]),
    cap: standing.map((amount) => rounded(cap) - amount),
    // A makespan is no shorter than these, and sums of a thousand of them are exact to some 1e-13 of it.
    slack: 1e-11 * Math.max(...time.map((each) => microbatches * sum(each)), sum(down) + sum(up)),
  };
  checkCap(problem, standing, cap);
  return problem;
}

/** The times of F, I and W on each rank, which must be those of every micro-batch. */
function timesOf(devices: number, microbatches: number, costs: Costs): Triple[] {
  const make = actionMaker(microbatches);
  return linearPlacement(devices).map((rank) =>
    kindsOfSearch.map((kind, at) => {
      const first = durationOf(costs, make(kind, rank, 0), rank, at);
      for (let microbatch = 1; microbatch < microbatches; microbatch++) {
        const action = make(kind, rank, microbatch);
        const time = durationOf(costs, action, rank, 3 * microbatch + at);
        if (time === first) continue;
        throw new UserError(
          `A search takes every micro-batch at the same cost, and on rank ${rank} ${
            formatAction(action)
          } takes ${time}, ` +
            `${formatAction(make(kind, rank, 0))} ${first}`,
        );
      }
      return first;
    }) as Triple
  );
}

/** A cap with a little for rounding: sums of amounts in another order differ in their last bits. */
const rounded = (cap: number) => cap * (1 + 1e-12);

/** Refuses a cap under which a rank cannot run a single micro-batch, its F, I and W one after the other. */
function checkCap({ take, give, workspace, sent }: Problem, standing: readonly number[], cap: number): void {
  const needs = standing.map((amount, r) => {
    const [a, d] = take[r];
    const [f, i, w] = workspace[r];
    return amount + Math.max(a + f, a + sent[r][F] + d + i, a + d - give[r][I] + sent[r][I] + w);
  });
  // The rank that needs most: what it needs is enough for all.
  const most = needs.reduce((worst, amount, r) => amount > needs[worst] ? r : worst, 0);
  if (needs[most] <= rounded(cap)) return;
  throw new UserError(`A cap of ${cap} is too small: rank ${most} needs ${needs[most]} for a single micro-batch`);
}

/**
 * Whether starting a kind would hold too much.
 *
 * @param ran How many F, I and W have run on the rank.
 * @param last The kind that ran last, whose message may still be under way; -1 for none.
 */
export function exceeds(problem: Problem, rank: number, kind: number, ran: ArrayLike<number>, last: number): boolean {
  const take = problem.take[rank];
  const give = problem.give[rank];
  const cap = problem.cap[rank];
  const held = ran[F] * take[F] + ran[I] * (take[I] - give[I]) - ran[W] * give[W] + take[kind];
  const underway = last < 0 ? 0 : problem.sent[rank][last];
  if (held + problem.workspace[rank][kind] + underway > cap) return true;
  // Once every W that is pending has run, the next I must still fit, or the rank is stuck.
  return kind === F && (ran[F] + 1 - ran[I]) * take[F] + take[I] + problem.workspace[rank][I] > cap;
}

/** Whether a rank's order keeps F before I before W and its cap. */
export function feasible(problem: Problem, rank: number, order: Uint8Array): boolean {
  const ran = [0, 0, 0];
  let last = -1;
  for (const kind of order) {
    if (kind !== F && ran[kind] >= ran[kind - 1]) return false;
    if (exceeds(problem, rank, kind, ran, last)) return false;
    ran[kind]++;
    last = kind;
  }
  return true;
}

/** The makespan from when each rank's last action ends. */
export function makespanOf({ tails }: Problem, ends: ArrayLike<number>): number {
  return withTails(ends, tails).done.reduce((most, done) => Math.max(most, done), 0);
}

/** Makespan of an order, or Infinity where it deadlocks. */
export function evaluate(problem: Problem, order: Order): number {
  const { devices, microbatches, time, down, up } = problem;
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
  return order.some((list, rank) => position[rank] < list.length) ? Infinity : makespanOf(problem, free);
}

/** The schedule of an order. */
export function scheduleOf({ devices, microbatches }: Problem, order: Order, name: string): Schedule {
  const make = actionMaker(microbatches);
  const actions = order.map((list, rank) => {
    const ran = [0, 0, 0];
    return Array.from(list, (kind) => make(kindsOfSearch[kind], rank, ran[kind]++));
  });
  return { name, placement: linearPlacement(devices), actions };
}
