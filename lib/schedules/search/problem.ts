/**
 * The search's own, compact view of a schedule with one stage a rank. Micro-batches cost the same, so only the order of
 * kinds on each rank matters: by exchange, the k-th F and the k-th I or B of a rank may always be that of micro-batch k, and a W
 * that of the first whose I waits for it. A B counts as an I and a W that end together: how many of each have run says all that
 * is left to do, whichever way they ran.
 *
 * @module
 */

import { UserError } from "../../errors.ts";
import { actionMaker, formatAction, type Schedule } from "../schedule.ts";
import { type Costs, delayOf, durationOf, endOf, sumOf, tailOf } from "../price/costs.ts";
import { type Memory, type StageMemory, stagesOf } from "../price/memory.ts";
import { peaksOf } from "../price/peak_memory.ts";
import { oneFOneB } from "../generators/one_f_one_b.ts";
import { linearPlacement } from "../generators/placement.ts";
import { B, F, I, isMessage, lower, outputOf, type Program, TIED, W } from "../program.ts";

/** The kinds of a search, by their index in `nodeKinds`. */
export const kindsOfSearch = ["F", "I", "W", "B"] as const;

/** For each rank the order of its kinds. */
export type Order = Uint8Array[];

/** Of an F, I, W and B. */
type Each = [number, number, number, number];

/** A wait for another rank. */
export interface Wait {
  /** The rank that is waited for. */
  rank: number;
  /** F, or I for either kind of backward. */
  kind: number;
  /** How long what it makes is under way. */
  delay: number;
}

/** How the step of a rank ends. */
export interface Tail {
  /** Ranks whose last actions, sums over replicas, and then a message, the sum of the rank's gradients waits for. */
  after: readonly Omit<Wait, "kind">[];
  /** Ranks whose sums the update waits for. */
  together: readonly number[];
  /** Time of the sum of its gradients over replicas, after its last action. */
  sum: number;
  /** Time of the update. */
  time: number;
}

/** How far the ranks are. */
export interface State {
  /** How many F, I and W have run on each rank, a B being one I and one W. */
  readonly ran: number[][];
  /** When the k-th F, and I or B, of each rank ended: `ended[kind][rank][k]`, right for those that have run. */
  readonly ended: readonly Float64Array[][];
}

/** Costs, memory and limits by rank. */
export interface Problem {
  /** Ranks, N. */
  devices: number;
  /** Micro-batches, M. */
  microbatches: number;
  /** Time of F, I, W and B on each rank. */
  time: Each[];
  /** Whether a B can be better than an I and its W at once: it takes less time, or holds less where that counts. */
  joins: boolean[];
  /** The least time from the start of a backward to its gradient, by rank. */
  gradient: number[];
  /** The least time that all of a backward takes, by rank. */
  backward: number[];
  /** The least that the next backward holds while it runs, beyond what is there before it. */
  room: number[];
  /** What the k-th F, I and W of a rank wait for on others: the k-th of a kind. */
  waits: (readonly Wait[])[][];
  /** What each rank needs after its last action. */
  tails: Tail[];
  /** What an action adds to what a rank holds while it runs, beyond what stays: workspace, and the message that it sends. */
  workspace: Each[];
  /** The message of an action, which is held besides until the next action of the rank has ended. */
  sent: Each[];
  /** What starting an action takes; an F whose backward may be whole the least that either way takes. */
  take: Each[];
  /** What ending an action gives back; a B is an I and a W. */
  give: Each[];
  /** What each rank may hold in activations, derivatives, workspace and messages, with a little for rounding. */
  cap: number[];
  /** By rank the kinds of one micro-batch, which one after another hold least. */
  inTurn: number[][];
  /**
   * Whether an order whose ranks are all {@link feasible} keeps the cap with the messages on their way, which the order of other
   * ranks decides about too, and with what an F keeps for the kind of its backward: as `peakMemory()` counts.
   */
  keepsCap(order: Order): boolean;
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
  const one = oneFOneB(devices, 1);
  // Which order it is does not matter: the k-th F, I or W of a rank is that of micro-batch k, and waits for the k-th of others.
  const program = lower(one, endOf(costs, one));
  const { forward, backward } = program;
  const stages = stagesOf(memory, devices);
  const time = timesBy(devices, microbatches, costs);
  const waits = stages.map((_, r) => [waitsOf(program, forward[r], costs), waitsOf(program, backward[r], costs), []]);
  const isSent = (node: number) => {
    const edge = outputOf(program, node);
    return edge >= 0 && isMessage(program, edge);
  };
  const sentOf = (amounts: (stage: StageMemory) => StageMemory["messages"]) =>
    stages.map((stage, r): Each => {
      const gradient = isSent(backward[r]) ? amounts(stage)?.I ?? 0 : 0;
      return [isSent(forward[r]) ? amounts(stage)?.F ?? 0 : 0, gradient, 0, gradient];
    });
  const sent = sentOf(({ messages }) => messages);
  // How long it is held besides depends on what the receiver does: see `keepsCap`.
  const staged = sentOf(({ staging }) => staging);
  const sum = (list: readonly number[]) => list.reduce((total, each) => total + each, 0);
  const standing = stages.map(({ parameters = 0, gradients = 0, optimizer = 0, transfer = 0, losses = 0 }) =>
    parameters + gradients + optimizer + transfer + losses * microbatches
  );
  const workspace = stages.map(({ workspace = {} }, r): Each => [
    (workspace.F ?? 0) + sent[r][F] + staged[r][F],
    (workspace.I ?? 0) + sent[r][I] + staged[r][I],
    workspace.W ?? 0,
    (workspace.B ?? 0) + sent[r][B] + staged[r][B],
  ]);
  // A makespan is no shorter than these, and sums of a thousand of them are exact to some 1e-13 of it.
  const slack = 1e-11 *
    Math.max(
      ...time.map(([f, i, w]) => microbatches * (f + Math.min(i, w) + Math.max(i, w))),
      sum(waits.flat(2).map(({ delay }) => delay)),
    );
  const joins = stages.map((stage, r) => {
    const { activations, derivatives, released = 0, whole = activations } = stage, [, i, w, b] = time[r];
    const [, ofI, ofW, ofB] = workspace[r];
    const holdsLess = derivatives + ofI > ofB || derivatives - released + sent[r][I] + ofW > ofB || whole < activations;
    return b < i + w - slack || (cap < Infinity && (holdsLess || stage.staging !== undefined));
  });
  const take = stages.map(({ activations, derivatives, whole = activations }, r): Each => [
    joins[r] ? Math.min(activations, whole) : activations,
    derivatives,
    0,
    0,
  ]);
  const isRough = stages.some(({ staging, activations, whole }, r) =>
    staging || (joins[r] && whole !== undefined && whole !== activations)
  );
  const problem: Problem = {
    devices,
    microbatches,
    time,
    joins,
    gradient: time.map(([, i, , b], r) => joins[r] ? Math.min(i, b) : i),
    backward: time.map(([, i, w, b], r) => joins[r] ? Math.min(i + w, b) : i + w),
    room: take.map(([, d], r) => joins[r] ? Math.min(d + workspace[r][I], workspace[r][B]) : d + workspace[r][I]),
    waits,
    tails: stages.map((_, r) => ({
      after: waitsOf(program, program.nodes - 2 * devices + r, costs, TIED),
      together: waitsOf(program, program.nodes - devices + r, costs).map(({ rank }) => rank),
      sum: sumOf(costs, r, r),
      time: tailOf(costs, r),
    })),
    workspace,
    sent,
    take,
    give: stages.map(({ derivatives, released = 0 }, r) => {
      const rest = take[r][F] - released + derivatives;
      return [0, released, rest, released + rest];
    }),
    inTurn: [], // below
    cap: standing.map((amount) => rounded(cap) - amount),
    keepsCap(order) {
      if (cap === Infinity || !isRough) return true;
      const peaks = peaksOf(lower(scheduleOf(problem, order, "search")), memory);
      return peaks.every((peak) => peak <= rounded(cap));
    },
    slack,
  };
  const turns = stages.map((stage, rank) => onePerTurn(problem, stage, rank));
  checkCap(turns, stages, standing, cap);
  problem.inTurn = turns.map(({ split, whole }) => whole < split ? [F, B] : [F, I, W]);
  return problem;
}

/** What a node of the Program waits for on other ranks, a full backward being its I; where it is said, for what passes only. */
function waitsOf(program: Program, node: number, costs: Costs, passes?: number): Wait[] {
  const { waits, from, what, rank, kind } = program;
  return Array.from({ length: waits[node + 1] - waits[node] }, (_, at) => waits[node] + at).flatMap((edge) => {
    const source = from[edge];
    if (passes !== undefined && what[edge] !== passes) return [];
    return {
      rank: rank[source],
      kind: kind[source] === F ? F : I,
      delay: delayOf(costs, what[edge], rank[source], rank[node]),
    };
  });
}

/** The times of F, I, W and B on each rank, which must be those of every micro-batch. */
function timesBy(devices: number, microbatches: number, costs: Costs): Each[] {
  const make = actionMaker(microbatches);
  return linearPlacement(devices).map((rank) =>
    kindsOfSearch.map((kind, at) => {
      const first = durationOf(costs, make(kind, rank, 0), rank, at % 3);
      for (let microbatch = 1; microbatch < microbatches; microbatch++) {
        const action = make(kind, rank, microbatch);
        const time = durationOf(costs, action, rank, 3 * microbatch + at % 3);
        if (time === first) continue;
        throw new UserError(
          `A search takes every micro-batch at the same cost, and on rank ${rank} ${
            formatAction(action)
          } takes ${time}, ` +
            `${formatAction(make(kind, rank, 0))} ${first}`,
        );
      }
      return first;
    }) as Each
  );
}

/** A cap with a little for rounding: sums of amounts in another order differ in their last bits. */
const rounded = (cap: number) => cap * (1 + 1e-12);

/** Refuses a cap under which a rank cannot run one micro-batch after another, all in the same way, and end the step. */
function checkCap(
  turns: readonly Record<"split" | "whole", number>[],
  stages: readonly StageMemory[],
  standing: readonly number[],
  cap: number,
): void {
  const needs = stages.map(({ update = 0 }, rank) => {
    const { split, whole } = turns[rank];
    return standing[rank] + Math.max(Math.min(split, whole), update);
  });
  // The rank that needs most: what it needs is enough for all.
  const most = needs.reduce((worst, amount, r) => amount > needs[worst] ? r : worst, 0);
  if (needs[most] <= rounded(cap)) return;
  throw new UserError(`A cap of ${cap} is too small: rank ${most} needs ${needs[most]} for a single micro-batch`);
}

/** What a rank holds at most that runs one micro-batch after another: with I and W, and with B where that may be better. */
function onePerTurn(
  { microbatches, take, give, workspace, sent, joins }: Problem,
  { activations: a, whole = a }: StageMemory,
  rank: number,
): { split: number; whole: number } {
  const [, d] = take[rank], [f, i, w, b] = workspace[rank], [ofF, ofI] = sent[rank];
  // The gradient of a B is still under way when the next F runs; a W is between the two otherwise.
  const before = microbatches > 1 ? ofI : 0;
  return {
    split: Math.max(a + f, a + ofF + d + i, a + d - give[rank][I] + ofI + w),
    whole: joins[rank] ? whole + Math.max(before + f, ofF + b) : Infinity,
  };
}

/**
 * Whether starting a kind would hold too much.
 *
 * @param ran How many F, I and W have run on the rank, a B being one of the last two each.
 * @param last The kind that ran last, whose message may still be under way; -1 for none.
 */
export function exceeds(problem: Problem, rank: number, kind: number, ran: ArrayLike<number>, last: number): boolean {
  const take = problem.take[rank];
  const give = problem.give[rank];
  const cap = problem.cap[rank];
  const held = ran[F] * take[F] + ran[I] * (take[I] - give[I]) - ran[W] * give[W] + take[kind];
  const underway = last < 0 ? 0 : problem.sent[rank][last];
  if (held + problem.workspace[rank][kind] + underway > cap) return true;
  // Once every W that is pending has run, the next backward must still fit, or the rank is stuck.
  return kind === F && (ran[F] + 1 - ran[I]) * take[F] + problem.room[rank] > cap;
}

/** Whether a rank's order keeps F before I or B, I before W, and its cap. */
export function feasible(problem: Problem, rank: number, order: Uint8Array): boolean {
  const ran = [0, 0, 0];
  let last = -1;
  for (const kind of order) {
    if (kind !== F && (kind === W ? ran[W] >= ran[I] : ran[I] >= ran[F])) return false;
    if (exceeds(problem, rank, kind, ran, last)) return false;
    count(ran, kind, 1);
    last = kind;
  }
  return true;
}

/** Counts an action that has run, or with -1 one that is taken back. */
export function count(ran: number[], kind: number, by: number): void {
  if (kind !== B) ran[kind] += by;
  else {
    ran[I] += by;
    ran[W] += by;
  }
}

/** Enters an action that has run. */
export function enter({ ran, ended }: State, rank: number, kind: number, end: number): void {
  const passes = kind === B ? I : kind;
  if (passes !== W) ended[passes][rank][ran[rank][passes]] = end;
  count(ran[rank], kind, 1);
}

/** When what the next F, I, W or B of a rank waits for has arrived: 0 where that is nothing, Infinity while somebody has not made it. */
export function arrivalOf({ waits }: Problem, { ran, ended }: State, rank: number, kind: number): number {
  const passes = kind === B ? I : kind, k = ran[rank][passes], list = waits[rank][passes];
  let latest = 0;
  for (let at = 0; at < list.length; at++) {
    const { rank: other, kind: made, delay } = list[at];
    if (ran[other][made] <= k) return Infinity;
    const arrival = ended[made][other][k] + delay;
    if (arrival > latest) latest = arrival;
  }
  return latest;
}

/** Where a search starts: nothing has run. */
export function nothingRun({ devices, microbatches }: Problem): State {
  return {
    ran: Array.from({ length: devices }, () => [0, 0, 0]),
    ended: [F, I].map(() => Array.from({ length: devices }, () => new Float64Array(microbatches))),
  };
}

/** The makespan from when each rank's last action ends. */
export function makespanOf({ tails }: Problem, ends: ArrayLike<number>): number {
  // With one stage a rank, its last action is the last W or B of its stage, which the sum over replicas waits for.
  const own = tails.map(({ sum }, rank) => ends[rank] + sum);
  const summed = tails.map(({ after }, rank) =>
    after.reduce((latest, { rank: other, delay }) => Math.max(latest, own[other] + delay), own[rank])
  );
  return tails.reduce((most, { together, time }, rank) => {
    const start = together.reduce((latest, other) => Math.max(latest, summed[other]), summed[rank]);
    return Math.max(most, start + time);
  }, 0);
}

/** Makespan of an order, or Infinity where it deadlocks. */
export function evaluate(problem: Problem, order: Order): number {
  const { devices, time } = problem;
  const state = nothingRun(problem);
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
        const arrival = arrivalOf(problem, state, rank, kind);
        if (arrival === Infinity) break;
        free[rank] = Math.max(free[rank], arrival) + time[rank][kind];
        enter(state, rank, kind, free[rank]);
        position[rank]++;
        moved = true;
      }
    }
  }
  return order.some((list, rank) => position[rank] < list.length) ? Infinity : makespanOf(problem, free);
}

/** What an activation takes from each rank to the next, and a gradient to the one before: what bounds are summed up from. */
export function linksOf({ waits, devices }: Problem): { down: number[]; up: number[] } {
  const links = [F, I].map((kind) => {
    const delays: number[] = new Array(devices).fill(0);
    for (const kinds of waits) for (const { rank, delay } of kinds[kind]) delays[rank] = delay;
    return delays;
  });
  return { down: links[F], up: links[I] };
}

/** The schedule of an order. */
export function scheduleOf({ devices, microbatches }: Problem, order: Order, name: string): Schedule {
  const make = actionMaker(microbatches);
  const actions = order.map((list, rank) => {
    const ran = [0, 0, 0], pending: number[] = [];
    return Array.from(list, (kind) => {
      if (kind === W) return make("W", rank, pending[ran[W]++]);
      const microbatch = ran[kind === F ? F : I]++;
      if (kind === I) pending.push(microbatch);
      return make(kindsOfSearch[kind], rank, microbatch);
    });
  });
  return { name, placement: linearPlacement(devices), actions };
}
