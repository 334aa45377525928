import { UserError } from "../../errors.ts";
import { anything, expectFields, expectValue, having, type Rule } from "../../rules.ts";
import { ACTIVATION, NOTHING, type Program, type StepEnd } from "../program.ts";
import { type Action, formatAction, type Schedule } from "../schedule.ts";
import { amount, checkAmount } from "./amounts.ts";

/**
 * What actions and transfers cost: times are finite numbers, 0 or more. Any unit will do, as long as all of them use the same.
 * Functions that take costs throw a UserError for a time that is none.
 */
export interface Costs {
  /**
   * Time the rank is busy with an action. `index` is its position in the rank's list, so that a measured run can be
   * replayed action by action. An I or B is priced as if it recomputed all there is to recompute.
   */
  duration(action: Action, rank: number, index: number): number;
  /** By how much an I or B of a stage is shorter where an R has run ahead of it; 0 when absent. */
  ahead?(stage: number, rank: number): number;
  /**
   * Time from the end of the producing action until its output can be used on the other rank; 0 on the same rank. It
   * occupies neither rank. `F` is an activation, `I` a gradient.
   */
  transfer?(fromRank: number, toRank: number, kind: "F" | "I"): number;
  /**
   * How long a message holds the line from one rank to another: the next one in this direction leaves when the line is free. It is the
   * part of `transfer` that grows with size, bytes over bandwidth. Where it is absent, messages do not slow each other.
   */
  line?(fromRank: number, toRank: number, kind: "F" | "I"): number;
  /** Time a rank needs after its last action, for the optimizer step. */
  tail?(rank: number): number;
  /** Other ranks whose last actions, and a message from each, the tail waits for: they have gradients of the same parameters. */
  tailAfter?(rank: number): readonly number[];
  /**
   * Whether no tail starts before the last actions of all ranks have ended, and what `tailAfter` says has come to all of them:
   * they agree that the step stands.
   */
  readonly tailTogether?: boolean;
  /** Time until what a rank says for that has come to the others; 0 when absent. */
  readonly agreement?: number;
  /**
   * Time from the end of a stage's last W or B until its gradients are summed over the replicas of the pipeline. A rank's sums run
   * one after the other beside its actions, and its tail waits for them. Absent where there is one replica.
   */
  sum?(stage: number, rank: number): number;
}

/** What costs must be; the times that they give are checked where they are asked for. */
export const costsRule: Rule = having("duration");

/** The time of an action, checked: everything that prices actions asks here. */
export function durationOf(costs: Costs, action: Action, rank: number, index: number): number {
  const time = costs.duration(action, rank, index);
  if (!amount.accepts(time)) checkAmount(`The time of ${formatAction(action)} on rank ${rank}`, time);
  return time;
}

/** The part of a Program that says where an R runs. */
type WhereAhead = Pick<Program, "ahead" | "microbatches">;

/** The time of an action in its program, checked: {@link durationOf}, less what an R ahead of it has done. */
export function lengthOf(costs: Costs, program: WhereAhead, action: Action, rank: number, index: number): number {
  const time = durationOf(costs, action, rank, index);
  return time - aheadOf(costs, program, action, rank, time);
}

/** What of an action that takes `time` an R has done ahead of it, checked: no more than that. */
export function aheadOf(
  costs: Costs,
  { ahead: isAhead, microbatches }: WhereAhead,
  action: Action,
  rank: number,
  time: number,
): number {
  const { kind, stage, microbatches: [microbatch] } = action;
  if ((kind !== "I" && kind !== "B") || isAhead[stage * microbatches + microbatch] === 0) return 0;
  const ahead = costs.ahead?.(action.stage, rank) ?? 0;
  checkAmount(`What an R takes off ${formatAction(action)} on rank ${rank}`, ahead);
  // By rounding, a sum may be that much less than its parts.
  if (ahead > time * (1 + 1e-9)) {
    throw new UserError(`An R takes ${ahead} off ${formatAction(action)} on rank ${rank}, which takes ${time} in all`);
  }
  return Math.min(ahead, time);
}

/** The time of a transfer, checked, and 0 on the same rank. */
export function transferOf(costs: Costs, from: number, to: number, kind: "F" | "I"): number {
  if (from === to || !costs.transfer) return 0;
  const time = costs.transfer(from, to, kind);
  if (!amount.accepts(time)) {
    checkAmount(`The time of ${kind === "F" ? "an activation" : "a gradient"} from rank ${from} to rank ${to}`, time);
  }
  return time;
}

/** How a step of a schedule with these costs ends, for `lower()`: where sums take time, the gradients of all stages are summed. */
export function endOf(costs: Costs, { placement }: Schedule): StepEnd {
  return {
    sums: costs.sum && Array.isArray(placement) ? [...placement.keys()] : [],
    reduceFrom: (rank) => costs.tailAfter?.(rank) ?? [],
    together: costs.tailTogether,
  };
}

/** How long what passes along an edge of a Program is under way from rank to rank. */
export function delayOf(costs: Costs, what: number, from: number, to: number): number {
  if (what !== NOTHING) return transferOf(costs, from, to, what === ACTIVATION ? "F" : "I");
  const { agreement = 0 } = costs;
  if (from === to || agreement === 0) return 0;
  checkAmount("The time of an agreement", agreement);
  return agreement;
}

/** How long the message along an edge of a Program holds the line that it goes over, checked, and 0 on the same rank. */
export function lineOf(costs: Costs, what: number, from: number, to: number): number {
  if (from === to || !costs.line) return 0;
  const time = costs.line(from, to, what === ACTIVATION ? "F" : "I");
  if (!amount.accepts(time)) {
    checkAmount(`The time that a message holds the line from rank ${from} to rank ${to}`, time);
  }
  return time;
}

/** The time of a rank's tail, checked. */
export function tailOf(costs: Costs, rank: number): number {
  const time = costs.tail?.(rank) ?? 0;
  checkAmount(`The tail of rank ${rank}`, time);
  return time;
}

/** The time of the sum of a stage's gradients over replicas, checked, and 0 where there is none. */
export function sumOf(costs: Costs, stage: number, rank: number): number {
  const time = costs.sum?.(stage, rank) ?? 0;
  checkAmount(`The time of the sum of stage ${stage} over replicas`, time);
  return time;
}

/** What one micro-batch costs on one stage. */
export interface StageCost {
  /** Forward. */
  f: number;
  /** Input gradient. */
  i: number;
  /** Weight gradient: of one micro-batch, or as a function of how many are concatenated. */
  w: number | ((width: number) => number);
  /** Full backward; i and one w when absent. */
  b?: number;
  /** What of `i`, and of `b`, recomputes, which an R may run ahead of them: at most as long as they; 0 when absent. */
  r?: number;
}

/**
 * Costs measured or chosen stage by stage; `comm` is the time of every transfer between different ranks.
 *
 * @throws {UserError} For a cost that is no finite number of 0 or more. Where `w` is a function, and for a stage that is not
 * there, whatever asks for the time throws it.
 */
export function stageCosts(stages: readonly StageCost[], comm = 0): Costs {
  stages.forEach(({ f, i, w, b, r = 0 }, stage) => {
    for (const [what, value] of Object.entries({ f, i, w, ...b !== undefined && { b }, r })) {
      if (typeof value !== "function") checkAmount(`The cost ${what} of stage ${stage}`, value);
    }
    expectAhead(r, Math.min(i, b ?? i), ` of stage ${stage}`);
  });
  checkAmount("The time comm of a transfer", comm);
  const weight = (stage: StageCost, width: number) => typeof stage.w === "number" ? width * stage.w : stage.w(width);
  return {
    duration({ kind, stage, microbatches }) {
      const cost = stages[stage];
      if (!cost) {
        throw new UserError(`These are costs of ${stages.length} stages, and the schedule has a stage ${stage}`);
      }
      if (kind === "F") return cost.f;
      if (kind === "I") return cost.i;
      if (kind === "R") return cost.r ?? 0;
      if (kind === "W") return weight(cost, microbatches.length);
      return cost.b ?? cost.i + weight(cost, 1);
    },
    ahead: (stage) => stages[stage].r ?? 0,
    transfer: (from, to) => from === to ? 0 : comm,
  };
}

/**
 * The same cost on every stage, each 1 unless said; B costs i + w, and a W of k micro-batches k * w. Of i, `r` recomputes, 0 unless
 * said, which an R may run ahead.
 *
 * @throws {UserError} For a cost that is no finite number of 0 or more.
 */
export function unitCosts(options: Partial<Record<"f" | "i" | "w" | "r" | "comm", number>> = {}): Costs {
  expectFields("unitCosts", options, { f: anything, i: anything, w: anything, r: anything, comm: anything }); // each below
  const { f = 1, i = 1, w = 1, r = 0, comm = 0 } = options;
  for (const [what, value] of Object.entries({ f, i, w, r, comm })) checkAmount(`The cost ${what}`, value);
  expectAhead(r, i);
  return {
    duration({ kind, microbatches }) {
      if (kind === "F") return f;
      if (kind === "I") return i;
      if (kind === "R") return r;
      return kind === "W" ? w * microbatches.length : i + w;
    },
    ahead: () => r,
    transfer: (from, to) => from === to ? 0 : comm,
  };
}

/** Refuses what is recomputed ahead of a backward and takes longer than all of that. */
function expectAhead(r: number, most: number, where = ""): void {
  if (r <= most * (1 + 1e-9)) return;
  throw new UserError(`The cost r${where} is ${r} of the ${most} that its backward takes in all; it cannot be more`);
}

/** A link between two ranks, in the unit of time of the costs it is added to. */
export interface Link {
  /** Time until the first byte arrives. */
  latency: number;
  /** Bytes in a unit of time; Infinity where size does not matter. */
  bandwidth: number;
}

const bandwidthRule: Rule = {
  right: "a number above 0, or Infinity where size does not matter",
  accepts: (value) => typeof value === "number" && value > 0,
};

/**
 * Costs whose transfers take latency plus bytes over bandwidth of the link they use. Messages from one rank to another follow each
 * other: the next begins when the bytes of the one before it have left. Those of other ranks, and those the other way, do not count.
 *
 * @param link The link from one rank to another.
 * @param bytes Size of an activation (`F`) and of a gradient (`I`).
 * @throws {UserError} For sizes that are no finite number of 0 or more; and, when a transfer is priced, for a latency that is
 * none and for a bandwidth that is not above 0.
 */
export function withLinks(
  costs: Costs,
  link: (from: number, to: number) => Link,
  bytes: Record<"F" | "I", number>,
): Costs {
  checkAmount("The size of an activation", bytes.F);
  checkAmount("The size of a gradient", bytes.I);
  const checked = (from: number, to: number) => {
    const { latency, bandwidth } = link(from, to);
    expectValue(`The bandwidth from rank ${from} to rank ${to}`, bandwidth, bandwidthRule);
    checkAmount(`The latency from rank ${from} to rank ${to}`, latency);
    return { latency, bandwidth };
  };
  return {
    ...costs,
    transfer(from, to, kind) {
      if (from === to) return 0;
      const { latency, bandwidth } = checked(from, to);
      return latency + bytes[kind] / bandwidth;
    },
    line: (from, to, kind) => from === to ? 0 : bytes[kind] / checked(from, to).bandwidth,
  };
}

/**
 * Costs with the time that the host takes to issue each action, during which the device waits.
 *
 * @throws {UserError} For a time that is no finite number of 0 or more.
 */
export function withHostOverhead(costs: Costs, perAction: number): Costs {
  checkAmount("The time that the host takes for an action", perAction);
  return { ...costs, duration: (action, rank, index) => perAction + costs.duration(action, rank, index) };
}

/**
 * Costs with a rank that is held up for some time after each of its B, before it sends: the time counts as part of the B.
 *
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { unitCosts, withStall } from "twobp/schedules";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * console.log(simulate(schedule, withStall(unitCosts(), 3, 1)).makespan); // 25: 21, and 4 times 1 on the last rank
 * ```
 *
 * @param time In the unit of the costs.
 * @throws {UserError} For a time that is no finite number of 0 or more.
 */
export function withStall(costs: Costs, rank: number, time: number): Costs {
  checkAmount("The time of a stall", time);
  return {
    ...costs,
    duration: (action, at, index) =>
      costs.duration(action, at, index) + (at === rank && action.kind === "B" ? time : 0),
  };
}

/** For costs that are numbers each, and whose sum is none. */
export function costsTooLarge(): UserError {
  return new UserError("The costs are too large: the times of a step add up to more than a number can hold, 1.8e308");
}
