import { UserError } from "../../errors.ts";
import { anything, callback, expectFields, optional, type Rules } from "../../rules.ts";
import { type Action, formatAction, type PolicyText, type Schedule } from "../schedule.ts";
import { type Costs, costsRule, endOf, unitCosts } from "../price/costs.ts";
import { fillCapped, fillFast, fillIdle } from "./fill.ts";
import { fillLean } from "./lean.ts";
import { type Memory, unitMemory } from "../price/memory.ts";
import { paperOrder } from "./paper.ts";
import { formatPolicy, parsePolicy, type Policy } from "./policy.ts";
import { fillSelected } from "./select.ts";
import { timesOf } from "../price/simulate.ts";
import { expectSchedule } from "../check/sizes.ts";
import { lower } from "../program.ts";

/** How `twoStage()` places the weight gradients. */
export interface TwoStageOptions {
  /** When they run, as data or as text; default `fill`. `lean` is a heuristic: other orders of the same length may hold less. */
  policy?: Policy | PolicyText;
  /**
   * How many micro-batches of a stage one W concatenates, at most; default 1. The last W of a stage may be narrower. `paper` has widths
   * of its own, which this caps: by default nothing does.
   */
  width?: number;
  /**
   * Costs that say what is idle, for `fill`, `lean`, `select` and `cap`, and for `select` what a B costs beside its I and W; unit costs
   * when absent. Where they are given, the result says whether it is slower than the schedule itself: see `Schedule.slower`.
   */
  costs?: Costs;
  /** What each stage holds, for `lean` and `cap`; activations 1 and derivatives 1 when absent. See `stageMemories`. */
  memory?: Memory;
}

const rules: Rules<TwoStageOptions> = {
  policy: anything, // in its own words
  width: anything,
  costs: optional(costsRule),
  memory: optional(callback),
};

/**
 * 2BP (arXiv 2405.18047) as a transform: splits every B of a schedule (with `select` those that gain by it) into an I in its place, whose
 * gradient leaves at once, and a W that the policy puts later. F, I and R keep the order of the schedule.
 *
 * With costs, `fill` and `lean` take no longer than the schedule itself wherever a B costs as much as its I and W: if need be they
 * run each W at once, one micro-batch wide. `select` never takes longer, whatever a B costs: it splits those backwards whose early
 * input gradient shortens the step and leaves the others whole, so that the result holds B beside I and W (or B alone, where
 * nothing is gained). It is a heuristic, which on two and three ranks misses the best of all splits by less than 4 %, and mostly
 * finds it; of a schedule of a million actions it looks at two dozen choices, which takes seconds. The other policies say where W
 * runs, whatever that costs. Whenever the result takes longer, its `slower` says by how much.
 *
 * @example
 * ```ts
 * import { generate, simulate, twoStage } from "twobp";
 *
 * const gpipe = generate("gpipe", { devices: 4 });
 * const split = twoStage(gpipe, { policy: "end", width: 4 });
 * console.log(simulate(gpipe).makespan, simulate(split).makespan); // 21 18
 * ```
 *
 * @throws {UserError} What `validate()` says of the schedule; for one that already holds I or W, a bad policy or width, a cap that
 * cannot be kept, and costs or memory that are none.
 */
export function twoStage(schedule: Schedule, options: TwoStageOptions = {}): Schedule {
  expectFields("twoStage", options, rules);
  const { costs = unitCosts(), memory = unitMemory } = options;
  const given = options.policy ?? "fill";
  const policy = parsePolicy(typeof given === "object" ? formatPolicy(given) : given);
  const { width = policy.kind === "paper" ? Number.MAX_SAFE_INTEGER : 1 } = options;
  if (!Number.isInteger(width) || width < 1) {
    throw new UserError(`A W concatenates a whole number of micro-batches, 1 or more; the width is ${width}`);
  }
  expectSchedule(schedule);
  const program = lower(schedule, endOf(costs, schedule));
  if (program.forwardOnly) {
    throw new UserError(
      `2BP splits full backwards, and ${schedule.name} runs forward passes alone: split, then forwardOnly()`,
    );
  }
  schedule.actions.forEach((list, rank) => {
    const split = list.find((action) => action.kind === "I" || action.kind === "W");
    if (split) {
      throw new UserError(
        `2BP splits full backwards, and ${schedule.name} has already split some: rank ${rank} runs ${
          formatAction(split)
        }`,
      );
    }
  });
  const actions = placed();
  const { slower: _, ...rest } = schedule;
  const split: Schedule = { ...rest, actions, policy: formatPolicy(policy) };
  if (!options.costs) return split;
  const slower = timesOf(lower(split, endOf(costs, split)), costs).makespan / timesOf(program, costs).makespan - 1;
  return slower > 1e-9 ? { ...split, slower } : split;

  function placed(): Action[][] {
    const flushed = (count: number) => schedule.actions.map((list) => flushEvery(count, list, width));
    switch (policy.kind) {
      case "fill":
        return options.costs ? fillFast(program, width, costs).actions : fillIdle(program, width, costs);
      case "lean":
        return fillLean(program, width, costs, memory);
      case "select":
        return fillSelected(program, width, costs).actions;
      case "cap":
        return fillCapped(program, width, costs, policy.bytes, memory);
      case "paper":
        return paperOrder(schedule.actions, width);
      case "end":
        return flushed(Infinity);
      case "mid":
        return flushed(Math.ceil(program.microbatches / 2));
      case "every":
        return flushed(policy.count);
    }
  }
}

/** Runs the weight gradients of a stage as soon as `count` of them are pending, and the rest at the end. */
function flushEvery(count: number, list: readonly Action[], width: number): Action[] {
  const result: Action[] = [];
  const pending = new Map<number, number[]>();
  const flush = (stage: number, waiting: number[]) => {
    while (waiting.length > 0) result.push({ kind: "W", stage, microbatches: waiting.splice(0, width) });
  };
  for (const action of list) {
    if (action.kind === "F" || action.kind === "R") {
      result.push(action);
      continue;
    }
    const { stage, microbatches } = action;
    result.push({ kind: "I", stage, microbatches });
    const waiting = pending.get(stage) ?? [];
    pending.set(stage, waiting);
    waiting.push(...microbatches);
    if (waiting.length >= count) flush(stage, waiting);
  }
  pending.forEach((waiting, stage) => flush(stage, waiting));
  return result;
}
