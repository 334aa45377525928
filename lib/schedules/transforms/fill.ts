import { UserError } from "../../errors.ts";
import type { Action } from "../schedule.ts";
import { type Costs, delayOf, endOf, lengthOf } from "../price/costs.ts";
import { linesOf } from "../price/lines.ts";
import { timeQueue } from "../heap.ts";
import { holdersOf } from "../price/holder.ts";
import { type Memory, stagesOf } from "../price/memory.ts";
import { peaksOf } from "../price/peak_memory.ts";
import { type Pending, pendingWeights } from "./pending.ts";
import { timesOf } from "../price/simulate.ts";
import { lower, type Program } from "../program.ts";
import { bestOrdered, isSummed, type StageOrder, stageOrders } from "./sum_order.ts";

/** Limits on what the ranks hold. */
export interface Cap {
  /** Of each rank, in the unit of the memory model. */
  bytes: readonly number[];
  /** What each stage holds. */
  memory: Memory;
}

/** What a filling is made of. */
export interface Filled {
  /** For each rank its list of F, I and W. */
  readonly actions: Action[][];
  /** The same, lowered: with the costs' waits. */
  readonly program: Program;
}

/**
 * Puts weight gradients into idle slots: a rank follows its own order of F and I, and whenever the next of them has not
 * arrived and a W of full width is pending, it runs that W. What is left runs at the end. With a cap it also runs W
 * before anything that would hold too much, micro-batches counted one by one (see {@link fillUnderCap} for wider ones).
 *
 * The choice is greedy, and a W cannot be interrupted, so where w is small against f + i + w it can delay the critical
 * input gradient and miss the floor that a search finds.
 *
 * @param program Of a schedule of F and B, each B of which becomes its I.
 * @param order Which stage's W go first; by default those that have waited longest.
 * @returns For each rank its list of F, I and W; undefined where a cap cannot be kept.
 */
export function fillIdle(
  program: Program,
  width: number,
  costs: Costs,
  cap?: undefined,
  order?: StageOrder,
): Action[][];
export function fillIdle(
  program: Program,
  width: number,
  costs: Costs,
  cap?: Cap,
  order?: StageOrder,
): Action[][] | undefined;
export function fillIdle(
  program: Program,
  width: number,
  costs: Costs,
  cap?: Cap,
  order?: StageOrder,
): Action[][] | undefined {
  const { schedule, devices, first, rank: rankOf, waits, from, what, to, output } = program;
  const count = first[devices];
  const result: Action[][] = Array.from({ length: devices }, () => []);
  const pending: Pending[] = Array.from({ length: devices }, () => pendingWeights(order));
  const overCap = cap ? capKeeper(program, cap) : undefined;
  const lines = linesOf(program, costs);
  /** Of each rank the node that it comes to next. */
  const next = first.slice(0, devices);
  const ends = new Float64Array(count).fill(NaN);
  // Since when a rank sleeps until somebody starts what it waits for; NaN while it does not.
  const asleepSince = new Float64Array(devices).fill(NaN);
  const queue = timeQueue();
  for (let rank = 0; rank < devices; rank++) queue.push(0, rank);

  const run = (rank: number, action: Action, start: number): number => {
    const end = start + lengthOf(costs, program, action, rank, result[rank].length);
    result[rank].push(action);
    overCap?.ran(rank, action);
    return end;
  };
  // When what an action waits for can be used: 0 for nothing, NaN while nobody knows.
  const arrival = (node: number): number => {
    let latest = 0;
    for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
      const end = ends[from[edge]], left = lines ? lines.left(edge, end) : end;
      latest = Math.max(latest, left + delayOf(costs, what[edge], rankOf[from[edge]], rankOf[node]));
    }
    return latest;
  };

  while (queue.size() > 0) {
    const { time, rank } = queue.pop();
    const node = next[rank];
    if (node === first[rank + 1]) {
      for (let w = pending[rank].next(width); w; w = pending[rank].next(width)) run(rank, w, time);
      continue;
    }
    const action = splitOf(schedule.actions[rank][node - first[rank]]);
    const ready = arrival(node);
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
    const end = ends[node] = run(rank, action, Math.max(time, ready));
    lines?.enter(node, end);
    next[rank]++;
    if (action.kind === "I") pending[rank].add(action.stage, action.microbatches[0]);
    queue.push(end, rank);
    if (output[node] < 0) continue;
    const woken = to[output[node]], other = rankOf[woken];
    if (woken !== next[other] || Number.isNaN(asleepSince[other])) continue;
    queue.push(asleepSince[other], other);
    asleepSince[other] = NaN;
  }
  return result;
}

/** A B as its I; any other action as it is. */
function splitOf(action: Action): Action {
  const { kind, stage, microbatches } = action; // not by spreading, which takes ten times as long
  return kind === "B" ? { kind: "I", stage, microbatches } : action;
}

function capKeeper(program: Program, { bytes, memory }: Cap) {
  const stages = stagesOf(memory, program.stages), holders = holdersOf(program, memory);
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

/** Lists of a schedule's actions in another order, lowered: what they wait for at the end of the step is the costs' to say. */
const lowered = ({ schedule }: Program, actions: Action[][], costs: Costs): Filled => ({
  actions,
  program: lower({ ...schedule, actions }, endOf(costs, schedule)),
});

/**
 * {@link fillIdle} under caps that hold for any width: where a W over several micro-batches takes room for all of them at once,
 * the caps that are kept one by one are lowered until the peaks fit. Undefined where they do not.
 */
export function fillUnderCap(
  program: Program,
  width: number,
  costs: Costs,
  cap: Cap,
  order?: StageOrder,
): (Filled & { peaks: number[] }) | undefined {
  const exceeds = (amount: number, rank: number) => amount > cap.bytes[rank] * (1 + 1e-12);
  if (holdersOf(program, cap.memory).some(({ atEnd }, rank) => exceeds(atEnd, rank))) return undefined;
  const inner = [...cap.bytes];
  for (;;) {
    const actions = fillIdle(program, width, costs, { bytes: inner, memory: cap.memory }, order);
    if (!actions) return undefined;
    const filled = lowered(program, actions, costs), peaks = peaksOf(filled.program, cap.memory);
    if (!peaks.some(exceeds)) return { ...filled, peaks };
    peaks.forEach((peak, rank) => inner[rank] -= Math.max(0, peak - cap.bytes[rank]));
  }
}

/** What each rank holds at most if every W follows its I at once: the least cap under which {@link fillIdle} finds an order. */
export function leastCaps(program: Program, memory: Memory): number[] {
  return peaksOf(lower({ ...program.schedule, actions: splitInPlace(program) }), memory);
}

/** The lists of a schedule with an I and its W in the place of each B. */
export function splitInPlace({ schedule }: Program): Action[][] {
  return schedule.actions.map((list) =>
    list.flatMap((action): Action[] => action.kind === "B" ? [splitOf(action), { ...action, kind: "W" }] : [action])
  );
}

/**
 * {@link fillIdle}, or where that takes longer than the schedule itself (a W that is not done when an input gradient arrives
 * delays it, and a full backward may cost less than its halves), the shortest of what else there is: single weight gradients in
 * idle slots, and each at once, which is never longer where a B costs no less than its I and W. Where gradients are summed over
 * replicas, each is the best of several orders of a rank's stages, see {@link stageOrders}.
 */
export function fillFast(
  program: Program,
  width: number,
  costs: Costs,
): Filled & { makespan: number; order?: StageOrder } {
  const orders = stageOrders(program, costs);
  const ordered = (width: number) =>
    bestOrdered(orders, costs, (order) => lowered(program, fillIdle(program, width, costs, undefined, order), costs))!;
  const timed = (actions: Action[][]) => {
    const filled = lowered(program, actions, costs);
    return { ...filled, makespan: timesOf(filled.program, costs).makespan };
  };
  let best: Filled & { makespan: number; order?: StageOrder } = ordered(width);
  const limit = timesOf(program, costs).makespan;
  // What is shortest without sums need not be with them, so there all are looked at.
  if (!isSummed(program) && best.makespan <= limit * (1 + 1e-9)) return best; // sums of the same costs in another order differ in their last bits
  for (const other of [...(width > 1 ? [ordered(1)] : []), timed(splitInPlace(program))]) {
    if (other.makespan < best.makespan) best = other;
  }
  return best;
}

/**
 * The filling under one cap for all ranks.
 *
 * @throws {UserError} Where no order of the weight gradients keeps it, with one that would do.
 */
export function fillCapped(program: Program, width: number, costs: Costs, bytes: number, memory: Memory): Action[][] {
  const { schedule: { name, actions } } = program;
  const cap = { bytes: actions.map(() => bytes), memory };
  const orders = stageOrders(program, costs);
  const ordered = (width: number) => {
    const under = (order?: StageOrder) => fillUnderCap(program, width, costs, cap, order);
    return orders.length > 0 ? bestOrdered(orders, costs, under) : under();
  };
  const filled = ordered(width) ?? (width > 1 ? ordered(1) : undefined);
  if (filled) return filled.actions;
  const least = leastCaps(program, memory);
  const most = Math.max(...least);
  throw new UserError(
    `cap:${bytes} is too small for ${name}: rank ${least.indexOf(most)} needs ${most} even if every weight ` +
      `gradient runs at once, so cap:${most} works`,
  );
}
