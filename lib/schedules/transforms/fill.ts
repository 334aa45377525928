import { UserError } from "../../errors.ts";
import type { Action, Schedule } from "../schedule.ts";
import { type Costs, durationOf, transferOf } from "../price/costs.ts";
import { timeQueue } from "../heap.ts";
import { holderOf, type Memory, peaksOf, stagesOf } from "../price/memory.ts";
import { type Pending, pendingWeights } from "./pending.ts";
import { simulate } from "../price/simulate.ts";
import { sizesOf } from "../check/sizes.ts";

/** Limits on what the ranks hold. */
export interface Cap {
  /** Of each rank, in the unit of the memory model. */
  bytes: readonly number[];
  /** What each stage holds. */
  memory: Memory;
}

/**
 * Puts weight gradients into idle slots: a rank follows its own order of F and I, and whenever the next of them has not
 * arrived and a W of full width is pending, it runs that W. What is left runs at the end. With a cap it also runs W
 * before anything that would hold too much, micro-batches counted one by one (see {@link fillUnderCap} for wider ones).
 *
 * The choice is greedy, and a W cannot be interrupted, so where w is small against f + i + w it can delay the critical
 * input gradient and miss the floor that a search finds.
 *
 * @param schedule A valid one of F and B.
 * @returns For each rank its list of F, I and W; undefined where a cap cannot be kept.
 */
export function fillIdle(schedule: Schedule, width: number, costs: Costs): Action[][];
export function fillIdle(schedule: Schedule, width: number, costs: Costs, cap?: Cap): Action[][] | undefined;
export function fillIdle(schedule: Schedule, width: number, costs: Costs, cap?: Cap): Action[][] | undefined {
  const { devices, stages, microbatches } = sizesOf(schedule), { placement } = schedule;
  const order = schedule.actions.map((list) =>
    list.map((action): Action => {
      const { kind, stage, microbatches } = action; // not by spreading, which takes ten times as long
      return kind === "B" ? { kind: "I", stage, microbatches } : action;
    })
  );
  const result: Action[][] = Array.from({ length: devices }, () => []);
  const pending: Pending[] = Array.from({ length: devices }, pendingWeights);
  const overCap = cap ? capKeeper(schedule, cap) : undefined;
  const position = new Int32Array(devices);
  const gradients = stages * microbatches;
  const endOf = new Float64Array(2 * gradients).fill(NaN);
  const waiter = new Int32Array(2 * gradients).fill(-1);
  // Since when a rank sleeps until somebody starts what it waits for; NaN while it does not.
  const asleepSince = new Float64Array(devices).fill(NaN);
  const queue = timeQueue();
  for (let rank = 0; rank < devices; rank++) queue.push(0, rank);

  const run = (rank: number, action: Action, start: number): number => {
    const end = start + durationOf(costs, action, rank, result[rank].length);
    result[rank].push(action);
    overCap?.ran(rank, action);
    return end;
  };
  // When what an action waits for can be used: 0 for nothing, NaN while nobody knows.
  const arrival = (rank: number, action: Action): number => {
    const kind = action.kind === "F" ? "F" : "I", source = action.stage + (kind === "F" ? -1 : 1);
    if (source < 0 || source >= stages) return 0;
    const key = (kind === "F" ? 0 : gradients) + source * microbatches + action.microbatches[0];
    if (Number.isNaN(endOf[key])) waiter[key] = rank;
    return endOf[key] + transferOf(costs, placement[source], rank, kind);
  };

  while (queue.size() > 0) {
    const { time, rank } = queue.pop();
    const action = order[rank][position[rank]];
    if (!action) {
      for (let w = pending[rank].next(width); w; w = pending[rank].next(width)) run(rank, w, time);
      continue;
    }
    const ready = arrival(rank, action);
    // Sums of the same costs in another order differ in their last bits; that must not read as idle time.
    const isReady = ready <= time + 1e-9 * (1 + Math.abs(time));
    const forced = overCap?.exceededBy(rank, action, pending[rank]) ?? false;
    const w = forced ? pending[rank].next(width) : isReady ? undefined : pending[rank].next(width, width);
    if (forced && !w) return undefined;
    if (w) {
      queue.push(run(rank, w, time), rank);
      continue;
    }
    if (!isReady) {
      if (Number.isNaN(ready)) asleepSince[rank] = time;
      else queue.push(ready, rank);
      continue;
    }
    const end = run(rank, action, Math.max(time, ready));
    position[rank]++;
    const own = action.stage * microbatches + action.microbatches[0];
    const output = action.kind === "F" ? own : gradients + own;
    endOf[output] = end;
    if (action.kind === "I") pending[rank].add(action.stage, action.microbatches[0]);
    queue.push(end, rank);
    const woken = waiter[output];
    if (woken < 0 || Number.isNaN(asleepSince[woken])) continue;
    queue.push(asleepSince[woken], woken);
    asleepSince[woken] = NaN;
  }
  return result;
}

function capKeeper(schedule: Schedule, { bytes, memory }: Cap) {
  const sizes = sizesOf(schedule), stages = stagesOf(memory, sizes.stages);
  const holders = schedule.actions.map((_, rank) => holderOf(schedule, sizes, rank, stages));
  const workspaceOf = (stage: number) => stages[stage].workspace?.W ?? 0;
  return {
    exceededBy(rank: number, action: Action, pending: Pending): boolean {
      const { during, after } = holders[rank].preview(action);
      // Every W that is pending then, one that follows this I among them, must still fit beside what the action leaves.
      const waiting = action.kind === "I" ? [...pending.stages(), action.stage] : pending.stages();
      const least = Math.max(during, after + Math.max(0, ...waiting.map(workspaceOf)));
      return least > bytes[rank] * (1 + 1e-12);
    },
    ran(rank: number, action: Action): void {
      holders[rank].start(action);
      holders[rank].end(action);
    },
  };
}

/**
 * {@link fillIdle} under caps that hold for any width: where a W over several micro-batches takes room for all of them at once,
 * the caps that are kept one by one are lowered until the peaks fit. Undefined where they do not.
 */
export function fillUnderCap(schedule: Schedule, width: number, costs: Costs, cap: Cap): Action[][] | undefined {
  const inner = [...cap.bytes];
  for (;;) {
    const actions = fillIdle(schedule, width, costs, { bytes: inner, memory: cap.memory });
    if (!actions) return undefined;
    const over = peaksOf({ ...schedule, actions }, cap.memory).map((peak, rank) => peak - cap.bytes[rank]);
    if (over.every((excess, rank) => excess <= 1e-12 * cap.bytes[rank])) return actions;
    over.forEach((excess, rank) => {
      if (excess > 0) inner[rank] -= excess;
    });
  }
}

/** What each rank holds at most if every W follows its I at once: the least cap under which {@link fillIdle} finds an order. */
export function leastCaps(schedule: Schedule, memory: Memory): number[] {
  return peaksOf({ ...schedule, actions: splitInPlace(schedule) }, memory);
}

/** The lists of a schedule with an I and its W in the place of each B. */
export function splitInPlace({ actions }: Schedule): Action[][] {
  return actions.map((list) =>
    list.flatMap((action): Action[] =>
      action.kind === "B" ? [{ ...action, kind: "I" }, { ...action, kind: "W" }] : [action]
    )
  );
}

/**
 * {@link fillIdle}, or where that takes longer than the schedule itself (a W that is not done when an input gradient arrives
 * delays it, and a full backward may cost less than its halves), the shortest of what else there is: single weight gradients in
 * idle slots, and each at once, which is never longer where a B costs no less than its I and W.
 */
export function fillFast(schedule: Schedule, width: number, costs: Costs): Action[][] {
  const timeOf = (actions: readonly (readonly Action[])[]) => simulate({ ...schedule, actions }, costs).makespan;
  const filled = fillIdle(schedule, width, costs);
  const limit = timeOf(schedule.actions);
  let [best, least] = [filled, timeOf(filled)];
  if (least <= limit * (1 + 1e-9)) return filled; // sums of the same costs in another order differ in their last bits
  for (const actions of [...(width > 1 ? [fillIdle(schedule, 1, costs)] : []), splitInPlace(schedule)]) {
    const time = timeOf(actions);
    if (time < least) [best, least] = [actions, time];
  }
  return best;
}

/**
 * The filling under one cap for all ranks.
 *
 * @throws {UserError} Where no order of the weight gradients keeps it, with the least cap that would do.
 */
export function fillCapped(schedule: Schedule, width: number, costs: Costs, bytes: number, memory: Memory): Action[][] {
  const actions = fillUnderCap(schedule, width, costs, { bytes: schedule.actions.map(() => bytes), memory }) ??
    (width > 1 ? fillUnderCap(schedule, 1, costs, { bytes: schedule.actions.map(() => bytes), memory }) : undefined);
  if (actions) return actions;
  const least = leastCaps(schedule, memory);
  const most = Math.max(...least);
  throw new UserError(
    `cap:${bytes} is too small for ${schedule.name}: rank ${least.indexOf(most)} needs ${most} even if every weight ` +
      `gradient runs at once, so cap:${most} is the least`,
  );
}
