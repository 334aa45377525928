import { UserError } from "../errors.ts";
import { type Action, formatAction, type Schedule } from "./actions.ts";
import type { Costs } from "./costs.ts";
import { timeQueue } from "./heap.ts";
import { giveBack, heldAtRest, type Memory, peakMemory, take, totalHeld } from "./memory.ts";
import { type Pending, pendingWeights } from "./pending.ts";
import { sourceOf } from "./walk.ts";

/** A limit on what one rank holds. */
export interface Cap {
  /** In the unit of the memory model. */
  bytes: number;
  /** What each stage holds. */
  memory: Memory;
}

/**
 * Puts weight gradients into idle slots: a rank follows its own order of F and I, and whenever the next of them has not
 * arrived and a W of full width is pending, it runs that W. What is left runs at the end. With a cap it also runs a W
 * before anything that would hold too much.
 *
 * The choice is greedy, and a W cannot be interrupted, so where w is small against f + i + w it can delay the critical
 * input gradient and miss the floor that a search finds.
 *
 * @param schedule Of F and B.
 * @returns For each rank its list of F, I and W.
 */
export function fillIdle(schedule: Schedule, width: number, costs: Costs, cap?: Cap): Action[][] {
  const { devices, stages, microbatches, placement } = schedule;
  const order = schedule.actions.map((list) =>
    list.map((action): Action => action.kind === "B" ? { ...action, kind: "I" } : action)
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
    const end = start + costs.duration(action, rank, result[rank].length);
    result[rank].push(action);
    overCap?.ran(rank, action);
    return end;
  };
  // When what an action waits for can be used: 0 for nothing, NaN while nobody knows.
  const arrival = (rank: number, action: Action): number => {
    const source = sourceOf(action, stages);
    if (!source) return 0;
    const key = (source.kind === "F" ? 0 : gradients) + source.stage * microbatches + source.microbatch;
    if (Number.isNaN(endOf[key])) waiter[key] = rank;
    const from = placement[source.stage];
    return endOf[key] + (from === rank ? 0 : costs.transfer?.(from, rank, source.kind) ?? 0);
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
    const forced = overCap?.exceededBy(rank, action) ?? false;
    const w = forced ? pending[rank].next(width) : isReady ? undefined : pending[rank].next(width, width);
    if (forced && !w) overCap!.fail(rank, action);
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
  overCap?.check(result);
  return result;
}

function capKeeper(schedule: Schedule, { bytes, memory }: Cap) {
  const held = schedule.actions.map((_, rank) => heldAtRest(schedule, rank, memory));
  const fail = (rank: number, needed: number, action: Action): never => {
    throw new UserError(
      `cap:${bytes} is too small for ${schedule.name}: device ${rank} needs ${needed} for ${formatAction(action)}, ` +
        "with no weight gradient left to run first",
    );
  };
  const needed = (rank: number, action: Action): number => {
    const stage = memory(action.stage);
    const then = { ...held[rank] };
    take(then, action, stage);
    // The W that follows must still fit beside what this I leaves.
    if (action.kind === "I") then.workspace = Math.max(then.workspace, stage.workspace?.W ?? 0);
    return totalHeld(then);
  };
  return {
    exceededBy: (rank: number, action: Action): boolean => needed(rank, action) > bytes,
    fail: (rank: number, action: Action): never => fail(rank, needed(rank, action), action),
    ran(rank: number, action: Action): void {
      take(held[rank], action, memory(action.stage));
      giveBack(held[rank], action, memory(action.stage));
    },
    check(actions: Action[][]): void {
      const peaks = peakMemory({ ...schedule, actions }, memory);
      const worst = peaks.indexOf(Math.max(...peaks));
      if (peaks[worst] > bytes) {
        throw new UserError(`cap:${bytes} is too small for ${schedule.name}: device ${worst} needs ${peaks[worst]}`);
      }
    },
  };
}
