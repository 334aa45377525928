/**
 * The search's own, compact view of a pipeline: what its stages take, hold and wait for, on whichever ranks they are placed.
 * Micro-batches cost the same, so only the order of a rank's stages and kinds matters: by exchange, the k-th F and the k-th I or B
 * of a stage may always be that of micro-batch k, and a W that of the first whose I waits for it. A B counts as an I and a W that
 * end together: how many of each have run says all that is left to do, whichever way they ran.
 *
 * Who waits for whom is read off a lowered schedule of one micro-batch: it is the same for each.
 *
 * @module
 */

import { UserError } from "../../errors.ts";
import { type Action, actionMaker, formatAction, type Schedule } from "../schedule.ts";
import { type Costs, delayOf, durationOf, endOf, sumOf, tailOf } from "../price/costs.ts";
import { type Memory, stagesOf } from "../price/memory.ts";
import { peaksOf } from "../price/peak_memory.ts";
import { F, I, lower, type Program, SUM, TIED, W } from "../program.ts";
import { type Amounts, amountsOf, rounded } from "./amounts.ts";
import { inTurnOf } from "./in_turn.ts";

/** The kinds of a search, by their index in `nodeKinds`. */
export const kindsOfSearch = ["F", "I", "W", "B"] as const;

/** For each rank the order of what it runs, as {@link codeOf} numbers it. */
export type Order = Int32Array[];

/** Of an F, I, W and B. */
export type Each = [number, number, number, number];

/** How the step of a rank ends. */
export interface Tail {
  /** Ranks whose last actions, sums over replicas, and then a message, the sum of the rank's gradients waits for. */
  readonly after: readonly { readonly rank: number; readonly delay: number }[];
  /** Ranks whose sums the update waits for. */
  readonly together: readonly number[];
  /** Time of the update. */
  readonly time: number;
}

/** Costs, memory and limits. What passes from stage to stage is numbered by {@link portOf}. */
export interface Problem extends Amounts {
  /** Ranks, N. */
  readonly devices: number;
  /** Stages, S. */
  readonly stages: number;
  /** Micro-batches, M. */
  readonly microbatches: number;
  /** Rank of each stage. */
  readonly placement: readonly number[];
  /** By rank its stages, those nearest to the input first. */
  readonly on: readonly (readonly number[])[];
  /** Time of F, I, W and B of each stage. */
  readonly time: readonly Each[];
  /** By stage the least time from the start of a backward to its gradient. */
  readonly gradient: readonly number[];
  /** By stage the least time that all of a backward takes. */
  readonly backward: readonly number[];
  /** Ports of a micro-batch in an order in which they can run. */
  readonly sequence: readonly number[];
  /** Of each port the port that it waits for, on another stage; -1 for none. */
  readonly source: Int32Array;
  /** How long what it waits for is under way. */
  readonly delay: Float64Array;
  /** The port that waits for it; -1 for none. */
  readonly sink: Int32Array;
  /** What each rank needs after its last action. */
  readonly tails: readonly Tail[];
  /** By stage the time of the sum of its gradients over replicas, after its last W or B. */
  readonly sums: readonly number[];
  /**
   * Whether an order whose ranks are all `feasible()` keeps the cap with the messages on their way, which the order of other ranks
   * decides about too, and with all else that {@link Amounts} leave out: as `peakMemory()` counts.
   */
  keepsCap(order: Order): boolean;
  /** By rank what it runs of one micro-batch, in an order that can be repeated, and that holds least. */
  readonly inTurn: readonly (readonly number[])[];
  /** Times closer than this are equal but for rounding. */
  readonly slack: number;
}

/** What a stage runs, as a number. */
export const codeOf = (stage: number, kind: number) => 4 * stage + kind;
/** What a stage makes for another, as a number: an F an activation, an I or B a gradient. */
export const portOf = (stage: number, kind: number) => 2 * stage + (kind === F ? 0 : 1);

/**
 * Sets up a problem.
 *
 * @throws {UserError} For costs and memory that are none, costs that differ between micro-batches, and when not even one
 * micro-batch fits under the cap.
 */
export function problemOf(
  placement: readonly number[],
  microbatches: number,
  costs: Costs,
  memory: Memory,
  cap: number,
): Problem {
  const devices = placement.reduce((most, rank) => Math.max(most, rank), 0) + 1, stages = placement.length;
  const one = microbatchesInTurn(placement, devices, 1);
  const program = lower(one, endOf(costs, one));
  const models = stagesOf(memory, stages);
  const time = timesBy(placement, microbatches, costs);
  const on = Array.from({ length: devices }, (_, rank) => [...placement.keys()].filter((s) => placement[s] === rank));
  const links = linksOf(program, costs);
  const load = on.map((own) =>
    own.reduce(
      (sum, s) =>
        sum + microbatches * (time[s][F] + Math.min(time[s][I], time[s][W]) + Math.max(time[s][I], time[s][W])),
      0,
    )
  );
  // A makespan is no shorter than these, and sums of a thousand of them are exact to some 1e-13 of it.
  const slack = 1e-11 * Math.max(...load, links.delay.reduce((sum, each) => sum + each, 0));
  const amounts = amountsOf({ program, models, time, microbatches, cap, slack });
  const { joins } = amounts;
  const problem: Problem = {
    devices,
    stages,
    microbatches,
    placement,
    on,
    time,
    gradient: time.map(([, i, , b], s) => joins[s] ? Math.min(i, b) : i),
    backward: time.map(([, i, w, b], s) => joins[s] ? Math.min(i + w, b) : i + w),
    ...links,
    tails: tailsOf(program, costs),
    sums: placement.map((rank, stage) => sumOf(costs, stage, rank)),
    ...amounts,
    keepsCap(order) {
      if (cap === Infinity || !amounts.isRough) return true;
      const peaks = peaksOf(lower(scheduleOf(problem, order, "search")), memory);
      return peaks.every((peak) => peak <= rounded(cap));
    },
    inTurn: on.map(() => []), // below
    slack,
  };
  return { ...problem, inTurn: inTurnOf(problem, models, cap) };
}

/** Micro-batch after micro-batch, each through all stages and back. */
export function microbatchesInTurn(placement: readonly number[], devices: number, microbatches: number): Schedule {
  const make = actionMaker(microbatches);
  const actions: Action[][] = Array.from({ length: devices }, () => []);
  for (let microbatch = 0; microbatch < microbatches; microbatch++) {
    for (const [stage, rank] of placement.entries()) actions[rank].push(make("F", stage, microbatch));
    for (const [stage, rank] of [...placement.entries()].reverse()) actions[rank].push(make("B", stage, microbatch));
  }
  return { name: "in turn", placement, actions };
}

/** What waits for what of another stage, for each micro-batch. */
function linksOf(program: Program, costs: Costs): Pick<Problem, "sequence" | "source" | "delay" | "sink"> {
  const { stages, first, devices, order, waits, from, what, rank, stage, kind } = program;
  const source = new Int32Array(2 * stages).fill(-1), sink = new Int32Array(2 * stages).fill(-1);
  const delay = new Float64Array(2 * stages);
  const sequence: number[] = [];
  for (const node of order) {
    if (node >= first[devices]) continue;
    const port = portOf(stage[node], kind[node]);
    sequence.push(port);
    for (let edge = waits[node]; edge < waits[node + 1]; edge++) {
      const before = from[edge];
      if (source[port] >= 0) throw new Error("An action waits for two others");
      source[port] = portOf(stage[before], kind[before]);
      sink[source[port]] = port;
      delay[port] = delayOf(costs, what[edge], rank[before], rank[node]);
    }
  }
  return { sequence, source, delay, sink };
}

/** What the ends of the ranks wait for on other ranks. */
function tailsOf({ devices, nodes, kind, rank, waits, from, what }: Program, costs: Costs): Tail[] {
  const edgesOf = (node: number) => Array.from({ length: waits[node + 1] - waits[node] }, (_, at) => waits[node] + at);
  return Array.from({ length: devices }, (_, own) => {
    const reduce = nodes - 2 * devices + own, update = nodes - devices + own;
    // What has been summed over replicas waits for the same ranks once more: it ends no earlier than their last actions.
    const after = edgesOf(reduce).filter((edge) => what[edge] === TIED && kind[from[edge]] !== SUM)
      .map((edge) => ({ rank: rank[from[edge]], delay: delayOf(costs, TIED, rank[from[edge]], own) }));
    return { after, together: edgesOf(update).map((edge) => rank[from[edge]]), time: tailOf(costs, own) };
  });
}

/** The times of F, I, W and B of each stage, which must be those of every micro-batch. */
function timesBy(placement: readonly number[], microbatches: number, costs: Costs): Each[] {
  const make = actionMaker(microbatches);
  return placement.map((rank, stage) =>
    kindsOfSearch.map((kind, at) => {
      const first = durationOf(costs, make(kind, stage, 0), rank, at % 3);
      for (let microbatch = 1; microbatch < microbatches; microbatch++) {
        const action = make(kind, stage, microbatch);
        const time = durationOf(costs, action, rank, 3 * microbatch + at % 3);
        if (time === first) continue;
        throw new UserError(
          `A search takes every micro-batch at the same cost, and on rank ${rank} ${
            formatAction(action)
          } takes ${time}, ` +
            `${formatAction(make(kind, stage, 0))} ${first}`,
        );
      }
      return first;
    }) as Each
  );
}

/** The schedule of an order. */
export function scheduleOf({ placement, microbatches, stages }: Problem, order: Order, name: string): Schedule {
  const make = actionMaker(microbatches);
  const ran = Array.from({ length: stages }, () => [0, 0, 0]);
  const pending: number[][] = Array.from({ length: stages }, () => []);
  const actions = order.map((list) =>
    Array.from(list, (code) => {
      const stage = code >> 2, kind = code & 3, own = ran[stage];
      if (kind === W) return make("W", stage, pending[stage][own[W]++]);
      const microbatch = own[kind === F ? F : I]++;
      if (kind === I) pending[stage].push(microbatch);
      return make(kindsOfSearch[kind], stage, microbatch);
    })
  );
  return { name, placement, actions };
}

/**
 * The order of a schedule of the same stages and micro-batches; undefined where there is none, as a W takes several micro-batches.
 */
export function orderOf({ placement, microbatches }: Problem, schedule: Schedule): Order | undefined {
  const { actions } = schedule;
  if (schedule.placement.length !== placement.length || schedule.placement.some((rank, s) => rank !== placement[s])) {
    return undefined;
  }
  const lists = actions.map((list) =>
    Int32Array.from(list, ({ kind, stage }) => codeOf(stage, kindsOfSearch.indexOf(kind)))
  );
  const ended = lists.reduce((sum, list) => list.reduce((sum, code) => sum + ((code & 3) >= W ? 1 : 0), sum), 0);
  return ended === placement.length * microbatches ? lists : undefined;
}
