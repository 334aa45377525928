import { anything, callback, expectFields, optional, positive, type Rule, type Rules } from "../../rules.ts";
import { UserError } from "../../errors.ts";
import type { Schedule } from "../schedule.ts";
import { branchAndBound, isSmall } from "./branch_and_bound.ts";
import { type Costs, costsRule, costsTooLarge, endOf, unitCosts } from "../price/costs.ts";
import { fillIdle } from "../transforms/fill.ts";
import { fillSelected } from "../transforms/select.ts";
import { listSchedule, rules } from "./list_scheduling.ts";
import { anneal } from "./local_search.ts";
import { lowerBound } from "./lower_bound.ts";
import { type Memory, unitMemory } from "../price/memory.ts";
import { lower } from "../program.ts";
import { oneFOneB } from "../generators/one_f_one_b.ts";
import { evaluate, feasible, kindsOfSearch, type Order, problemOf, scheduleOf } from "./problem.ts";
import { checkCells, checkWhole } from "../check/sizes.ts";
import { zbH1, zbH2 } from "../generators/zero_bubble.ts";

/** What to search for. */
export interface SearchOptions {
  /** Number of ranks, with one stage each. */
  devices: number;
  /** Number of micro-batches. */
  microbatches: number;
  /** Unit costs when absent; every micro-batch costs the same. */
  costs?: Costs;
  /** What a stage holds; activations 1 and derivatives 1 when absent. */
  memory?: Memory;
  /** The most that any rank may hold, in the unit of the memory model; no limit when absent. */
  cap?: number;
  /** How many candidates to look at before giving up on a proof; default a million, some seconds to a minute. */
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
  /** No schedule of one stage a rank is faster than this; the makespan itself once that is proven. */
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
  microbatches: anything,
  costs: optional(costsRule),
  memory: optional(callback),
  cap: optional(capRule),
  budget: optional(positive),
  onProgress: optional(callback),
  signal: anything,
};

/**
 * Searches the fastest schedule of F, I, W and B with one stage a rank under a memory cap (each backward whole or split, whichever
 * is better): list scheduling with several
 * priority rules; where that does not reach the lower bound, simulated annealing; and then, for small sizes,
 * branch and bound, which proves what it finds unless the budget ends first. The same options give the same result.
 *
 * "Proven" is exact but for rounding: to 1e-9 of the makespan. It holds for the cap as `peakMemory()` counts, workspace and messages
 * included (`staging` like `messages`: until the next action of the rank has ended), and for the makespan as `simulate()` counts,
 * tails included.
 *
 * @throws {UserError} For bad sizes, limits, costs and memory, costs that differ between micro-batches, and a cap under which not
 * even one micro-batch fits: it names the least that would do.
 *
 * @example
 * ```ts
 * import { search } from "twobp";
 *
 * const { makespan, proven } = await search({ devices: 3, microbatches: 3 });
 * console.log(makespan, proven); // 11 true
 * ```
 */
export async function search(options: SearchOptions): Promise<SearchResult> {
  expectFields("search", options, rulesOfSearch);
  const { devices, microbatches, costs = unitCosts(), memory = unitMemory, cap = Infinity, budget = 1e6 } = options;
  checkWhole("A search", { devices, "micro-batches": microbatches });
  checkCells("A search", devices, microbatches);
  const problem = problemOf(devices, microbatches, costs, memory, cap);
  const bound = lowerBound(problem);
  const candidates: Order[] = [];
  for (const rule of rules(problem)) {
    const order = listSchedule(problem, rule);
    if (order) candidates.push(order);
  }
  const oneEach = oneFOneB(devices, microbatches);
  const known = [
    zbH1(devices, microbatches).actions,
    zbH2(devices, microbatches).actions,
    fillIdle(lower(oneEach), 1, costs),
    ...(problem.joins.includes(true)
      ? [oneEach.actions, fillSelected(lower(oneEach, endOf(costs, oneEach)), 1, costs).actions]
      : []),
  ];
  for (const actions of known) {
    const order = actions.map((list) => Uint8Array.from(list, ({ kind }) => kindsOfSearch.indexOf(kind as "F")));
    if (order.every((list, rank) => feasible(problem, rank, list))) candidates.push(order);
  }
  // Micro-batch after micro-batch fits wherever one of them does.
  candidates.push(
    problem.inTurn.map((kinds) => Uint8Array.from(Array.from({ length: microbatches }, () => kinds).flat())),
  );
  let best: Order | undefined;
  let makespan = Infinity;
  /** The shortest that was passed over because its messages exceed the cap. */
  let excluded = Infinity;
  const consider = (order: Order) => {
    const value = evaluate(problem, order);
    if (value >= makespan) return;
    if (problem.keepsCap(order)) [best, makespan] = [order, value];
    else excluded = Math.min(excluded, value);
  };
  candidates.forEach(consider);
  if (!best && excluded === Infinity) throw costsTooLarge();
  if (!best) throw new UserError(`A cap of ${cap} is too small for the messages on their way between ${devices} ranks`);

  let done = 0;
  const reached = () => makespan <= bound + problem.slack;
  /** Whether the generator came to its end. */
  const drive = async (steps: Generator<Order | undefined, void>, until: number): Promise<boolean> => {
    let paused = performance.now();
    while (done < until) {
      const { value, done: ended } = steps.next();
      if (ended) return true;
      done++;
      if (value) {
        consider(value);
        if (reached()) return true;
      }
      // Often enough that a key press is noticed, seldom enough that it costs nothing.
      if (done % 64 === 0 && performance.now() - paused > 50) {
        options.onProgress?.({ done, budget, best: makespan, lowerBound: bound });
        await new Promise((resolve) => setTimeout(resolve, 0));
        paused = performance.now();
        if (options.signal?.aborted) return false;
      }
    }
    return false;
  };

  let proven = reached();
  if (!proven) await drive(anneal(problem, best!, Math.ceil(budget / 10)), budget / 10);
  proven = reached();
  if (!proven && isSmall(problem) && !options.signal?.aborted) {
    const ended = await drive(branchAndBound(problem, makespan), budget);
    // What was passed over may have hidden others, as short, that keep the cap.
    proven = reached() || (ended && excluded >= makespan - problem.slack);
  }
  const schedule = scheduleOf(problem, best!, "search");
  return { schedule, makespan, lowerBound: proven ? makespan : bound, proven };
}
