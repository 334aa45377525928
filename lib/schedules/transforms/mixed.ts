/** Schedules that split some backwards and not others: what a choice of them takes, and its lists. */
import { type Costs, delayOf, durationOf, lengthOf, sumOf, tailOf } from "../price/costs.ts";
import { linesOf } from "../price/lines.ts";
import { B, type Program } from "../program.ts";
import type { Action } from "../schedule.ts";
import { type Pending, pendingWeights } from "./pending.ts";
import type { StageOrder } from "./sum_order.ts";

/** Which backwards are split, and how their weight gradients are placed. */
export interface Choice {
  /** By node of the base: 1 for a backward that is split. */
  readonly split: Uint8Array;
  /**
   * By rank: the share of a W that has to fit into an idle slot for it to run there. With 0 every idle slot is taken, though the next
   * action be late for it; with 1 none is late.
   */
  readonly patience: Float64Array;
  /** Micro-batches that one W takes at most. */
  readonly width: number;
  /** By stage which one's W go first; those that have waited longest by default. */
  readonly order?: StageOrder;
}

/** What a choice takes. */
export interface Score {
  /** Length of the step. */
  readonly makespan: number;
  /** Busy time of all ranks. */
  readonly busy: number;
  /** How many backwards are split. */
  readonly splits: number;
}

/** Prices the choices of one schedule of F and B. */
export interface Mixer {
  /** What a choice takes. Linear in the number of actions, and without an object for any of them. */
  score(choice: Choice): Score;
  /** The nodes of the longest chain of the choice that was scored last, from its end: each waited for the next. */
  longestChain(): number[];
  /** For each rank its list of F, I, W and B. */
  build(choice: Choice): Action[][];
}

/**
 * The same greedy filling as `fillIdle`: a rank follows its own order, and while its next action has not arrived it runs the oldest W.
 * That needs no clock common to all ranks: when an action arrives is settled before its rank comes to it, so one pass in an order in
 * which the nodes can run is enough.
 *
 * @param program Of a schedule of F and B.
 */
export function mixerOf(program: Program, costs: Costs): Mixer {
  const { schedule: { actions }, devices, first, nodes, kind, rank: rankOf, stage, microbatch, microbatches } = program;
  const { waits, from, what, order, stages, sum, schedule: { placement } } = program;
  const count = first[devices], sums = nodes - 2 * devices - count;
  const whole = new Float64Array(nodes), input = new Float64Array(count);
  for (let rank = 0; rank < devices; rank++) {
    for (const [index, action] of actions[rank].entries()) {
      const node = first[rank] + index;
      whole[node] = lengthOf(costs, program, action, rank, index);
      if (kind[node] === B) input[node] = lengthOf(costs, program, inputOf(action), rank, index);
    }
    whole[nodes - devices + rank] = tailOf(costs, rank);
  }
  for (let node = count; node < nodes - 2 * devices; node++) whole[node] = sumOf(costs, stage[node], rankOf[node]);
  const delay = new Float64Array(from.length);
  for (let node = 0; node < nodes; node++) {
    for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
      delay[edge] = delayOf(costs, what[edge], rankOf[from[edge]], rankOf[node]);
    }
  }
  const own = Array.from(
    { length: devices },
    (_, rank) => placement.flatMap((each, stage) => each === rank ? [stage] : []),
  );
  const weights: number[][] = Array.from({ length: stages }, () => []);
  const all = Array.from({ length: microbatches }, (_, each) => each);
  const weight = (stage: number, width: number) =>
    weights[stage][width] ??= durationOf(
      costs,
      { kind: "W", stage, microbatches: all.slice(0, width) },
      placement[stage],
      0,
    );

  const lines = linesOf(program, costs);
  /** When what an action waits for leaves. */
  const leftOf = (edge: number) => lines ? lines.left(edge, ends[from[edge]]) : ends[from[edge]];
  const ends = new Float64Array(nodes), free = new Float64Array(devices);
  /** Of each node the one that its start waited for. */
  const because = new Int32Array(nodes), previous = new Int32Array(devices);
  /** Of each stage, how many of its I have run, how many are in a W, and of each I how many had run on its rank before. */
  const made = new Int32Array(stages), taken = new Int32Array(stages), ran = new Int32Array(devices);
  const since = new Int32Array(stages * microbatches);
  /** Of each stage when the last of its W and B so far has ended, and what its rank had run before that. */
  const closed = new Float64Array(stages), closedBy = new Int32Array(stages);

  /** The stage of the rank whose W is next: the first, and of those the one that has waited longest, among those of so many. */
  const nextStage = (rank: number, least: number, order?: StageOrder): number => {
    let chosen = -1, earliest = Infinity, first = Infinity;
    for (const stage of own[rank]) {
      const comes = order?.[stage] ?? 0;
      if (made[stage] - taken[stage] < least || comes > first) continue;
      const at = since[stage * microbatches + taken[stage]];
      if (comes === first && at >= earliest) continue;
      [chosen, earliest, first] = [stage, at, comes];
    }
    return chosen;
  };

  const close = (rank: number, stage: number) => {
    closed[stage] = free[rank];
    closedBy[stage] = previous[rank];
  };
  /**
   * Ends the sums over replicas of a rank, which follow each other as their stages close. What waits for one of them waits for all, so
   * each is given the end of the last, and what that waited for: what closed the stage after which there was no gap.
   */
  const sumUp = (rank: number) => {
    let lane = 0, cause = -1;
    for (const each of own[rank].toSorted((a, b) => closed[a] - closed[b])) {
      if (closed[each] >= lane) [lane, cause] = [closed[each], closedBy[each]];
      lane += whole[sum[each]];
    }
    for (const each of own[rank]) {
      ends[sum[each]] = lane;
      because[sum[each]] = cause;
    }
  };

  function pass({ split, patience, width, order: stageOrder }: Choice, lists?: Action[][]): Score {
    let busy = 0, splits = 0;
    const pending = lists?.map((): Pending => pendingWeights(stageOrder));
    lines?.clear();
    free.fill(0);
    previous.fill(-1);
    made.fill(0);
    taken.fill(0);
    ran.fill(0);
    const take = (rank: number, stage: number) => {
      const size = Math.min(width, made[stage] - taken[stage]), time = weight(stage, size);
      taken[stage] += size;
      free[rank] += time;
      busy += time;
      close(rank, stage);
      lists?.[rank].push(pending![rank].next(width, size)!);
    };
    for (let at = 0; at < count; at++) {
      const node = order[at], rank = rankOf[node];
      const edge = waits[node]; // an action has one, or none
      const ready = edge < waits[node + 1] ? leftOf(edge) + delay[edge] : 0;
      if (ready > free[rank]) {
        for (;;) {
          const now = free[rank];
          if (ready <= now + 1e-9 * (1 + now)) break;
          const stage = nextStage(rank, width, stageOrder);
          if (stage < 0 || (patience[rank] > 0 && ready - now < patience[rank] * weight(stage, width))) break;
          take(rank, stage);
        }
      }
      because[node] = previous[rank];
      if (ready > free[rank]) {
        free[rank] = ready;
        because[node] = from[edge];
      }
      const isSplit = split[node] === 1, time = isSplit ? input[node] : whole[node];
      free[rank] += time;
      busy += time;
      ends[node] = free[rank];
      lines?.enter(node, free[rank]);
      previous[rank] = node;
      const action = lists && actions[rank][node - first[rank]];
      if (lists) lists[rank].push(isSplit ? inputOf(action!) : action!);
      if (!isSplit) {
        if (kind[node] === B) close(rank, stage[node]);
        continue;
      }
      splits++;
      since[stage[node] * microbatches + made[stage[node]]++] = ran[rank]++;
      pending?.[rank].add(stage[node], microbatch[node]);
    }
    for (let rank = 0; rank < devices; rank++) {
      for (let stage = nextStage(rank, 1, stageOrder); stage >= 0; stage = nextStage(rank, 1, stageOrder)) {
        take(rank, stage);
      }
      if (first[rank + 1] > first[rank]) ends[first[rank + 1] - 1] = free[rank]; // what the others' ends wait for
      if (sums > 0) sumUp(rank);
    }
    let makespan = 0;
    for (let at = count + sums; at < nodes; at++) {
      const node = order[at], rank = rankOf[node];
      because[node] = previous[rank];
      for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
        const ready = ends[from[edge]] + delay[edge];
        if (ready <= free[rank]) continue;
        free[rank] = ready;
        because[node] = from[edge];
      }
      free[rank] += whole[node];
      busy += whole[node];
      ends[node] = free[rank];
      previous[rank] = node;
      makespan = Math.max(makespan, ends[node]);
    }
    return { makespan, busy, splits };
  }
  return {
    score: (choice) => pass(choice),
    longestChain() {
      let last = nodes - devices;
      for (let node = last; node < nodes; node++) if (ends[node] > ends[last]) last = node;
      const chain: number[] = [];
      for (let node = last; node >= 0; node = because[node]) if (node < count) chain.push(node);
      return chain;
    },
    build(choice) {
      const lists: Action[][] = Array.from({ length: devices }, () => []);
      pass(choice, lists);
      return lists;
    },
  };
}

const inputOf = ({ stage, microbatches }: Action): Action => ({ kind: "I", stage, microbatches });
