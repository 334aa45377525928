/** Splits backwards only where it pays. */
import { type Costs, endOf } from "../price/costs.ts";
import { timesOf } from "../price/simulate.ts";
import { B, lower, type Program } from "../program.ts";
import type { Action } from "../schedule.ts";
import { type Filled, fillFast, splitInPlace } from "./fill.ts";
import { type Choice, type Mixer, mixerOf, type Score } from "./mixed.ts";
import { isSummed, type StageOrder, stageOrders } from "./sum_order.ts";

/** Nodes that are looked at in all, each choice taking all of a schedule's. */
const usualEffort = 1e7;
/** Choices that are looked at, however large a schedule is. */
const leastChoices = 24;
/** Rounds along the longest chain without a better choice. */
const fruitless = 4;
/** Choices that are looked at more closely. */
const kept = 6;
/** Shares of a W that an idle slot has to hold. */
const patiences = [0, 1, 0.5];

/**
 * Chooses which backwards to split. A heuristic over {@link Choice}, each priced by one pass over the schedule. It starts from
 * all backwards split and from none, and from the first and last few of each rank (which is where a pipeline idles), and follows
 * the longest chain: splits what another rank waits for there, and makes whole what only its own rank does. From the best, it
 * splits and makes whole blocks of stages times micro-batches, from all of them down to single ones, as long as something
 * is gained and the effort lasts. Of equal lengths the one with less busy time, then the one of fewer splits.
 *
 * Where gradients are summed over replicas, the orders of {@link stageOrders} are tried too, rank by rank.
 *
 * Never longer than the schedule itself, nor than `fillFast` makes it, nor than what is found without looking at sums.
 *
 * @param effort Nodes that are looked at in all, each choice taking all of the schedule's; at least two dozen choices are.
 */
export function fillSelected(program: Program, width: number, costs: Costs, effort = usualEffort): Filled {
  const orders = stageOrders(program, costs);
  const mixer = mixerOf(program, costs), climb = climber(program, mixer, effort, orders);
  for (const patience of patiences) {
    for (const each of width > 1 ? [width, 1] : [1]) {
      for (const split of startsOf(program)) {
        for (const order of [undefined, ...orders]) {
          climb.start({ split, patience: new Float64Array(program.devices).fill(patience), width: each, order });
        }
      }
    }
  }
  climb.along();
  climb.sweep();
  const timed = (actions: Action[][]) => {
    const filled = { actions, program: lower({ ...program.schedule, actions }, endOf(costs, program.schedule)) };
    return { ...filled, makespan: timesOf(filled.program, costs).makespan };
  };
  let best: Filled & { makespan: number } = {
    actions: program.schedule.actions.map((list) => [...list]),
    program,
    makespan: timesOf(program, costs).makespan,
  };
  const others = [splitInPlace(program)];
  if (isSummed(program)) {
    // The climb is a heuristic: what it finds without the sums may be shorter with them than what it finds with them.
    const { sum: _, ...rest } = costs, { schedule } = program;
    others.push(
      fillFast(program, width, costs).actions,
      fillSelected(lower(schedule, endOf(rest, schedule)), width, rest, effort).actions,
    );
  }
  for (const actions of [mixer.build(climb.best().choice), ...others]) {
    const other = timed(actions);
    if (other.makespan < best.makespan * (1 - 1e-9)) best = other;
  }
  return best;
}

/** Where to start: all split, none, and the first and last few backwards of each rank, more of them towards one end of the pipeline. */
function* startsOf(
  { schedule: { actions }, devices, stages, nodes, first, kind }: Program,
): Generator<Uint8Array<ArrayBuffer>> {
  const counts: ((rank: number) => number)[] = [() => 0, (r) => r, (r) => devices - 1 - r, () => devices];
  const chunks = Math.ceil(stages / devices);
  yield Uint8Array.from(kind.subarray(0, nodes), (each) => each === B ? 1 : 0);
  for (const early of counts) {
    for (const late of counts) {
      const split = new Uint8Array(nodes);
      for (let rank = 0; rank < devices; rank++) {
        const backwards = actions[rank].flatMap(({ kind }, at) => kind === "B" ? [first[rank] + at] : []);
        backwards.forEach((node, at) => {
          if (at < chunks * early(rank) || backwards.length - at <= chunks * late(rank)) split[node] = 1;
        });
      }
      yield split;
    }
  }
}

/** A choice and what it takes. */
interface Scored {
  readonly choice: Choice;
  readonly score: Score;
}

/** Looks for better choices until the effort is spent. */
function climber(program: Program, mixer: Mixer, effort: number, orders: readonly StageOrder[]) {
  const { nodes, devices, stages, microbatches, rank, kind, backward, schedule: { placement } } = program;
  const most = Math.max(effort, leastChoices * nodes);
  let left = most;
  /** The best ends of all chains and sweeps, the best first. */
  const found: Scored[] = [];
  const scored = (choice: Choice): Score => {
    left -= nodes;
    return mixer.score(choice);
  };
  const byScore = (a: Scored, b: Scored) => isBetter(a.score, b.score) ? -1 : isBetter(b.score, a.score) ? 1 : 0;
  const keep = (one: Scored) => {
    const equals = ({ score }: Scored) => !isBetter(score, one.score) && !isBetter(one.score, score);
    if (found.some(equals)) return;
    found.push(one);
    found.sort(byScore);
    found.length = Math.min(found.length, kept);
  };

  /** Follows the longest chain of a choice. */
  const follow = ({ choice: start, score }: Scored) => {
    const choice = copyOf(start);
    scored(choice);
    let last: Scored = { choice: start, score };
    for (let since = 0; left > 0 && since < fruitless; since++) {
      const chain = mixer.longestChain();
      let changed = 0;
      for (let at = 1; at < chain.length; at++) {
        const node = chain[at], wanted = rank[node] === rank[chain[at - 1]] ? 0 : 1;
        if (kind[node] !== B || choice.split[node] === wanted) continue;
        choice.split[node] = wanted;
        changed++;
      }
      if (changed === 0) break;
      const score = scored(choice);
      if (!isBetter(score, last.score)) continue;
      last = { choice: copyOf(choice), score };
      since = -1;
    }
    keep(last);
  };

  /** Tries changes of a choice, large ones first, until none is better. */
  const sweep = ({ choice: start, score: current }: Scored) => {
    let choice = start;
    const isGain = (): boolean => {
      const score = scored(choice);
      if (!isBetter(score, current)) return false;
      current = score;
      return true;
    };
    const trySplit = (cells: number[], wanted: number): boolean => {
      const changed = cells.filter((node) => choice.split[node] !== wanted);
      if (changed.length === 0 || left <= 0) return false;
      for (const node of changed) choice.split[node] = wanted;
      const gained = isGain();
      if (!gained) { for (const node of changed) choice.split[node] = 1 - wanted; }
      return gained;
    };
    const tryPatience = (rank: number, wanted: number): boolean => {
      const before = choice.patience[rank];
      if (before === wanted || left <= 0) return false;
      choice.patience[rank] = wanted;
      const gained = isGain();
      if (!gained) choice.patience[rank] = before;
      return gained;
    };
    const tryOrder = (own: number, wanted: StageOrder): boolean => {
      const before = choice.order ?? new Float64Array(stages);
      const order = before.map((each, stage) => placement[stage] === own ? wanted[stage] : each);
      if (left <= 0 || order.every((each, stage) => each === before[stage])) return false;
      choice = { ...choice, order };
      const gained = isGain();
      if (!gained) choice = { ...choice, order: before };
      return gained;
    };
    for (let gained = true; gained && left > 0;) {
      gained = false;
      for (const order of orders) for (let r = 0; r < devices; r++) if (tryOrder(r, order)) gained = true;
      for (const high of halvings(stages)) {
        for (const wide of halvings(microbatches)) {
          for (let stage = 0; stage < stages && left > 0; stage += high) {
            for (let from = 0; from < microbatches && left > 0; from += wide) {
              const cells: number[] = [];
              for (let s = stage; s < Math.min(stages, stage + high); s++) {
                for (let m = from; m < Math.min(microbatches, from + wide); m++) {
                  cells.push(backward[s * microbatches + m]);
                }
              }
              for (const wanted of [0, 1]) if (trySplit(cells, wanted)) gained = true;
            }
          }
        }
      }
      for (let r = 0; r < devices; r++) for (const wanted of patiences) if (tryPatience(r, wanted)) gained = true;
    }
    keep({ choice, score: current });
  };
  const starts: Scored[] = [];
  return {
    /** Prices a choice to start from; of large schedules not all of them. */
    start(choice: Choice) {
      if (left > most / 3) starts.push({ choice, score: scored(choice) });
    },
    /** Follows the longest chains, of the best first. */
    along() {
      starts.sort(byScore).forEach(keep);
      for (const one of starts) if (left > 0) follow(one);
    },
    /** Changes the best that were found. */
    sweep() {
      for (const { choice, score } of [...found]) sweep({ choice: copyOf(choice), score });
    },
    best: () => found[0],
  };
}

/** A number, and its halves down to 1. */
function halvings(most: number): number[] {
  return most === 1 ? [1] : [most, ...halvings(Math.ceil(most / 2))];
}

const copyOf = ({ split, patience, width, order }: Choice): Choice => ({
  split: split.slice(),
  patience: patience.slice(),
  width,
  order: order?.slice(),
});

/** Sums of the same costs in another order differ in their last bits. */
function isBetter(a: Score, b: Score): boolean {
  const differs = (a: number, b: number) => Math.abs(a - b) > 1e-9 * Math.max(a, b);
  if (differs(a.makespan, b.makespan)) return a.makespan < b.makespan;
  if (differs(a.busy, b.busy)) return a.busy < b.busy;
  return a.splits < b.splits;
}
