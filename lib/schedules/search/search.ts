import { anything, callback, described, expectFields, optional, positive, type Rule, type Rules } from "../../rules.ts";
import { UserError } from "../../errors.ts";
import type { Schedule } from "../schedule.ts";
import { branchAndBound, canBeProven } from "./branch_and_bound.ts";
import { type Costs, costsRule, costsTooLarge, endOf, unitCosts } from "../price/costs.ts";
import { fillIdle } from "../transforms/fill.ts";
import { fillSelected } from "../transforms/select.ts";
import { generate } from "../generators/generate.ts";
import { linearPlacement } from "../generators/placement.ts";
import { zoo } from "../generators/zoo.ts";
import { feasible } from "./amounts.ts";
import { listSchedule, rules } from "./list_scheduling.ts";
import { anneal } from "./local_search.ts";
import { bounds } from "./lower_bound.ts";
import { simulate } from "../price/simulate.ts";
import { type Memory, unitMemory } from "../price/memory.ts";
import { lower } from "../program.ts";
import { type Order, orderOf, type Problem, scheduleOf } from "./problem.ts";
import { problemOf } from "./setup.ts";
import { evaluate } from "./state.ts";
import { checkCells, checkWhole, sizesOf } from "../check/sizes.ts";

/** What to search for. */
export interface SearchOptions {
  /** Number of ranks; absent where a placement says it. */
  devices?: number;
  /**
   * Rank of each stage, or the name of a schedule of the zoo that places them so; one stage a rank, in order, when absent.
   */
  placement?: readonly number[] | string;
  /** A schedule to start from, and to take the placement from where there is none: the result is no slower, if it keeps the cap. */
  from?: Schedule;
  /** Number of micro-batches. */
  microbatches: number;
  /** Unit costs when absent; every micro-batch costs the same. */
  costs?: Costs;
  /** What a stage holds; activations 1 and derivatives 1 when absent. */
  memory?: Memory;
  /** The most that any rank may hold, in the unit of the memory model; no limit when absent. */
  cap?: number;
  /**
   * How many candidates to look at before giving up on a proof; default a million, some seconds to a minute or two. Raising the bound
   * counts as many as take as long.
   */
  budget?: number;
  /** Called a few times a second. */
  onProgress?: (progress: Progress) => void;
  /** Ends the search early; it then returns the best so far. */
  signal?: AbortSignal;
}

/** How far a search is. */
export interface Progress {
  /** Candidates looked at. */
  done: number;
  /** Candidates to look at at most. */
  budget: number;
  /** Best makespan so far. */
  best: number;
  /** No schedule is faster than this. */
  lowerBound: number;
}

/** What a search found. */
export interface SearchResult {
  /** The best schedule seen, made of F, I and W, with B where a B takes less time than its I and W, or less memory under a cap. */
  schedule: Schedule;
  /** Its makespan. */
  makespan: number;
  /** No schedule of these stages on these ranks is faster than this; the makespan itself once that is proven. */
  lowerBound: number;
  /** Whether the schedule is proven to be optimal. */
  proven: boolean;
}

const capRule: Rule = {
  right: "an amount of memory, 0 or more, or Infinity for no limit",
  accepts: (value) => typeof value === "number" && value >= 0,
};

const rulesOfSearch: Rules<SearchOptions> = {
  devices: anything, // in its own words
  placement: anything,
  from: anything,
  microbatches: anything,
  costs: optional(costsRule),
  memory: optional(callback),
  cap: optional(capRule),
  budget: optional(positive),
  onProgress: optional(callback),
  signal: anything,
};

/**
 * Searches the fastest schedule of F, I, W and B for stages on ranks, one each or several however they are placed, under a memory cap,
 * each backward whole or split, whichever is better: list scheduling with several priority rules, and the zoo's schedules of that
 * placement; where none of these reaches the lower bound, simulated annealing along the longest chain; then claims about where in a
 * step single actions can be, which raise the bound as they are refuted; and for small sizes branch and bound, which proves what it
 * finds unless the budget ends first. The same options give the same result.
 *
 * "Proven" is exact but for rounding: to 1e-9 of the makespan. It holds for the cap as `peakMemory()` counts, workspace and messages
 * included (`staging` like `messages`: until the next action of the rank has ended), and for the makespan as `simulate()` counts,
 * links, tails and sums over replicas included. What is not proven has a `lowerBound` that is. Where costs have a `line` or an
 * `agreement`, makespans are with them, and bounds, proofs and the order of trying without.
 *
 * @throws {UserError} For bad sizes, placements, limits, costs and memory, costs that differ between micro-batches, and a cap under
 * which not even one micro-batch fits: it names the least that would do.
 *
 * @example
 * ```ts
 * import { search } from "twobp";
 *
 * const { makespan, proven } = await search({ devices: 3, microbatches: 3 });
 * console.log(makespan, proven); // 11 true
 *
 * // Two stages a rank, down and up again, as zb-v places them; a list of ranks would do as well.
 * const onV = await search({ devices: 2, microbatches: 4, placement: "zb-v" });
 * console.log(onV.schedule.placement.join(" "), onV.makespan, onV.proven); // 0 1 1 0 25 true
 * ```
 */
export async function search(options: SearchOptions): Promise<SearchResult> {
  expectFields("search", options, rulesOfSearch);
  const { microbatches, costs = unitCosts(), memory = unitMemory, cap = Infinity, budget = 1e6, from } = options;
  checkWhole("A search", { "micro-batches": microbatches });
  const placement = placementOf(options);
  checkCells("A search", placement.length, microbatches);
  const problem = problemOf(placement, microbatches, costs, memory, cap);
  const { bound: simple, raise } = bounds(problem);
  let bound = simple;
  let best: Order | undefined;
  let makespan = Infinity;
  /** The shortest that was passed over because its messages exceed the cap. */
  let excluded = Infinity;
  // Without lines that messages queue for and without agreements a step is never longer: bounds hold, and so does what is passed over.
  const isQueued = costs.line !== undefined || costs.agreement !== undefined;
  const consider = (order: Order) => {
    let value = evaluate(problem, order);
    if (value >= makespan) return;
    if (isQueued) value = simulate(scheduleOf(problem, order, "search"), costs).makespan;
    if (value >= makespan) return;
    if (problem.keepsCap(order)) [best, makespan] = [order, value];
    else excluded = Math.min(excluded, value);
  };
  for (const order of starts(problem, costs, from)) consider(order);
  if (!best && excluded === Infinity) throw costsTooLarge();
  if (!best) {
    throw new UserError(`A cap of ${cap} is too small for the messages on their way between ${problem.devices} ranks`);
  }

  let done = 0;
  const reached = () => makespan <= bound + problem.slack;
  let paused = performance.now();
  /** Reports a few times a second; says whether to go on. */
  const goOn = async (): Promise<boolean> => {
    if (performance.now() - paused <= 50) return true;
    options.onProgress?.({ done, budget, best: makespan, lowerBound: bound });
    await new Promise((resolve) => setTimeout(resolve, 0));
    paused = performance.now();
    return !options.signal?.aborted;
  };
  /** Whether the generator came to its end. */
  const drive = async (steps: Generator<Order | undefined, void>, until: number): Promise<boolean> => {
    while (done < until) {
      const { value, done: ended } = steps.next();
      if (ended) return true;
      done++;
      if (value) {
        consider(value);
        if (reached()) return true;
      }
      // Often enough that a key press is noticed, seldom enough that it costs nothing.
      if (done % 64 === 0 && !await goOn()) return false;
    }
    return false;
  };

  /** Anneals in turns, each from the best so far, until so much of the budget is spent. */
  const annealed = async (share: number): Promise<void> => {
    while (done < share * budget && !reached() && !options.signal?.aborted) {
      const turn = anneal(problem, best!, Math.ceil(budget / 10), turns.next().value);
      if (!await drive(turn, share * budget)) return;
    }
  };
  /** Raises the bound, by claims about single actions that take so much of the budget. */
  const raised = async (share: number): Promise<void> => {
    if (reached() || options.signal?.aborted) return;
    const price = problem.stages * microbatches / claimsPerPart;
    for (const { bound: higher, isClaim } of raise(makespan, share * budget / price)) {
      bound = higher;
      if (isClaim) done = Math.min(budget, done + price);
      if (!await goOn()) return;
    }
  };

  const isSmall = canBeProven(problem), turns = turnsOf();
  await annealed(0.1);
  await raised(0);
  if (!isSmall) await annealed(0.6);
  await raised(isSmall ? 0.1 : 0.4);
  let proven = reached();
  if (!proven && isSmall && !options.signal?.aborted) {
    const ended = await drive(branchAndBound(problem, makespan), budget);
    // What was passed over may have hidden others, as short, that keep the cap.
    proven = reached() || (ended && !isQueued && excluded >= makespan - problem.slack);
  }
  const schedule = scheduleOf(problem, best!, "search");
  return { schedule, makespan, lowerBound: proven ? makespan : bound, proven };
}

/** So many candidates take as long as a claim for each of a problem's parts of a kind. */
const claimsPerPart = 4;

/** How warm one annealing after the other begins: those that begin cold look near the best, the others further away. */
function* turnsOf(): Generator<{ seed: number; warm: number }, never> {
  for (let seed = 1;; seed++) yield { seed, warm: [0.3, 1, 0.3, 3, 0.3, 10][(seed - 1) % 6] };
}

/** The rank of each stage, checked. */
function placementOf({ devices, placement, from, microbatches }: SearchOptions): readonly number[] {
  if (placement === undefined && from === undefined) {
    checkWhole("A search", { devices: devices! });
    checkCells("A search", devices!, microbatches);
    return linearPlacement(devices!);
  }
  if (typeof placement === "string") {
    if (devices === undefined) {
      throw new UserError(`A search of the placement of ${placement} needs devices, the number of ranks`);
    }
    return placementOf({
      devices,
      placement: generate(placement, { devices, microbatches }).placement,
      from,
      microbatches,
    });
  }
  const given = placement ?? sizedAs(from!, microbatches).placement;
  if (!Array.isArray(given) || given.length === 0) {
    throw new UserError(
      `A placement is a list with the rank of each stage, or the name of a schedule; got ${described(given)}`,
    );
  }
  const ranks = devices ?? Math.max(...given) + 1;
  for (const [stage, rank] of given.entries()) {
    if (Number.isInteger(rank) && rank >= 0 && rank < ranks) continue;
    throw new UserError(`Stage ${stage} is placed on rank ${described(rank)}; the ranks are 0 to ${ranks - 1}`);
  }
  for (let rank = 0; rank < ranks; rank++) {
    if (!given.includes(rank)) throw new UserError(`A search needs a stage on every rank, and rank ${rank} has none`);
  }
  if (placement && from && sizedAs(from, microbatches).placement.join() !== given.join()) {
    throw new UserError(
      `A search starts from a schedule of its own placement, ${given}; ${from.name} has ${from.placement}`,
    );
  }
  return given;
}

/** A schedule to start from, which must have as many micro-batches. */
function sizedAs(from: Schedule, microbatches: number): Schedule {
  const sizes = sizesOf(from);
  if (sizes.microbatches === microbatches) return from;
  throw new UserError(
    `A search of ${microbatches} micro-batches cannot start from ${from.name}, which has ${sizes.microbatches}; give as many`,
  );
}

/** Orders to start from: those of rules, of the zoo's schedules that are placed the same way, and one that always keeps the cap. */
function* starts(problem: Problem, costs: Costs, from: Schedule | undefined): Generator<Order> {
  for (const rule of rules(problem)) {
    const order = listSchedule(problem, rule);
    if (order) yield order;
  }
  for (const schedule of known(problem, costs)) {
    const order = orderOf(problem, schedule);
    if (order?.every((list) => feasible(problem, list))) yield order;
  }
  if (from) {
    const order = orderOf(problem, from);
    if (order?.every((list) => feasible(problem, list))) yield order;
  }
  // Micro-batch after micro-batch fits wherever one of them does.
  yield problem.inTurn.map((codes) =>
    Int32Array.from(Array.from({ length: problem.microbatches }, () => codes).flat())
  );
}

function* known({ placement, devices, microbatches, joins }: Problem, costs: Costs): Generator<Schedule> {
  for (const { sameAs, make, chunks, isChunked } of zoo) {
    if (sameAs) continue;
    let schedule: Schedule;
    try {
      schedule = make(devices, microbatches, isChunked ? Math.max(1, Math.round(placement.length / devices)) : chunks);
    } catch (error) {
      if (error instanceof UserError) continue; // not defined for these sizes
      throw error;
    }
    if (schedule.placement.length !== placement.length || schedule.placement.some((rank, s) => rank !== placement[s])) {
      continue;
    }
    yield schedule;
    if (sizesOf(schedule).split) continue;
    yield { ...schedule, actions: fillIdle(lower(schedule), 1, costs) };
    if (joins.includes(true)) {
      yield { ...schedule, actions: fillSelected(lower(schedule, endOf(costs, schedule)), 1, costs).actions };
    }
  }
}
