/** What the costs that an ablation has measured say of other numbers of ranks, other stalls, and other machines. */
import { UserError } from "../../errors.ts";
import { expectValue, filled, positive } from "../../rules.ts";
import { amount } from "../../schedules/price/amounts.ts";
import { type Costs, stageCosts, withHostOverhead, withStall } from "../../schedules/price/costs.ts";
import { simulate } from "../../schedules/price/simulate.ts";
import type { SchedulePair } from "../../schedules/transforms/pair.ts";
import { type RungName, rungPair } from "./ladder.ts";
import { weightTime } from "../../schedules/price/weight_time.ts";
import { type MeasuredCosts, type MeasuredStage, simulatorCosts } from "../costs.ts";
import { median } from "../statistics.ts";

/** The gain that the 2BP paper's abstract reports (arXiv 2405.18047), for a transformer on four GPUs. */
export const publishedGain = 1.70;

/** The ranks that it was measured on. */
export const publishedDevices = 4;

/** The costs of a rung. */
export interface RungCosts {
  /** Which rung. */
  readonly name: RungName;
  /** Device times of its actions. */
  readonly costs: MeasuredCosts;
}

/** What an ablation predicts from: plain data, which another machine's report has as well. Milliseconds. */
export interface LadderCosts {
  /** The rungs, from the bottom. */
  readonly rungs: readonly RungCosts[];
  /** What the host takes for each action while the device waits; 0 on real devices, where it is over before. */
  readonly hostMs: number;
  /** What a message between two ranks takes. */
  readonly messageMs: number;
}

/** A rung of a prediction. */
export interface PredictedRung {
  /** Which rung. */
  readonly name: RungName;
  /** Simulated step time without 2BP over the one with. */
  readonly gain: number;
  /** That over the gain of the rung below; on the lowest the gain itself. */
  readonly factor: number;
}

/** A stall, and what it makes of a gain. */
export interface PredictedStall {
  /** After each backward of the last rank, in milliseconds. */
  readonly ms: number;
  /** In shares of a backward of that rank. */
  readonly share: number;
  /** The gain of the rung below the stall with it. */
  readonly gain: number;
}

/** What an ablation would give. */
export interface AblationPrediction {
  /** Number of ranks. */
  readonly devices: number;
  /** Whether the stages are those measured; otherwise each is like an inner one of them. */
  readonly measuredStages: boolean;
  /** The rungs, from the bottom. */
  readonly rungs: readonly PredictedRung[];
  /** The highest rung without a stall, with stalls of several lengths. */
  readonly stalls: readonly PredictedStall[];
  /** The stall that would raise that rung to {@link publishedGain}; of no length where it is there without. */
  readonly needed: PredictedStall;
}

/** What to predict. */
export interface PredictionOptions {
  /** The schedule that was measured. */
  readonly schedule: string;
  /** Number of ranks. */
  readonly devices: number;
  /** Length of the stall of the highest rung, in milliseconds. */
  readonly stallMs: number;
}

/** In shares of a backward. */
const sweep = [0, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2];

/**
 * Simulates the ladder on measured costs. For as many ranks as were measured the stages are what they are; for another number every
 * stage is like an inner one (the median of those between the first and the last; of all where there is none between).
 *
 * @throws {UserError} For a schedule that is no rung's, a number of ranks or a time that is none, and without rungs.
 */
export function predictAblation(
  { rungs, hostMs, messageMs }: LadderCosts,
  { schedule, devices, stallMs }: PredictionOptions,
): AblationPrediction {
  expectValue("predictAblation: the rungs", rungs, filled);
  expectValue("predictAblation: devices", devices, positive);
  expectValue("predictAblation: stallMs", stallMs, amount);
  const last = devices - 1;
  const measuredStages = rungs[0].costs.stages.length === devices;
  const priced = rungs.map(({ name, costs }) => ({
    name,
    pair: rungPair(name, schedule, devices),
    costs: withHostOverhead(
      measuredStages
        ? simulatorCosts(costs, { transfer: (from, to) => from === to ? 0 : messageMs })
        : repeated(costs, devices, messageMs),
      hostMs,
    ),
  }));
  const gainOf = ({ base, split }: SchedulePair, costs: Costs, ms: number) =>
    simulate(base, withStall(costs, last, ms)).makespan / simulate(split, costs).makespan;
  const gains = priced.map(({ name, pair, costs }) => gainOf(pair, costs, name === "stall" ? stallMs : 0));
  const top = priced.findLast(({ name }) => name !== "stall");
  if (!top) throw new UserError("predictAblation: there must be a rung without a stall");
  const backward = top.costs.duration({ kind: "B", stage: last, microbatches: [0] }, last, 0);
  const stalled = (ms: number) => ({ ms, share: ms / backward, gain: gainOf(top.pair, top.costs, ms) });
  return {
    devices,
    measuredStages,
    rungs: priced.map(({ name }, at) => ({
      name,
      gain: gains[at],
      factor: at > 0 ? gains[at] / gains[at - 1] : gains[at],
    })),
    stalls: sweep.map((share) => stalled(share * backward)),
    needed: stalled(neededFor(publishedGain, (ms) => gainOf(top.pair, top.costs, ms), backward)),
  };
}

/** The shortest stall with which a gain reaches `wanted`: a gain grows with the stall, in the end in proportion to it. */
function neededFor(wanted: number, gainOf: (ms: number) => number, start: number): number {
  if (gainOf(0) >= wanted) return 0;
  let [low, high] = [0, start];
  while (gainOf(high) < wanted) [low, high] = [high, 2 * high];
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (gainOf(middle) < wanted) low = middle;
    else high = middle;
  }
  return high;
}

/** Costs of ranks that are all like the inner ones that were measured. */
function repeated({ stages, optimizer }: MeasuredCosts, devices: number, messageMs: number): Costs {
  const inner = <Item>(list: readonly Item[]) => list.length > 2 ? list.slice(1, -1) : list;
  const stage = innerStage(inner(stages));
  const tail = median(inner(optimizer).map((time) => time || 0));
  return {
    ...stageCosts(Array.from({ length: devices }, () => stage), messageMs),
    tail: () => tail,
    tailTogether: true,
  };
}

function innerStage(stages: readonly MeasuredStage[]) {
  const of = (kind: "f" | "i" | "b") => median(stages.map((stage) => stage[kind]));
  const widths = [...new Set(stages.flatMap(({ w }) => Object.keys(w).map(Number)))].sort((a, b) => a - b);
  const w = Object.fromEntries(
    widths.map((width) => [width, median(stages.filter(({ w }) => width in w).map(({ w }) => w[width]))]),
  );
  return { f: of("f"), i: of("i"), b: of("b"), w: (width: number) => weightTime(w, width) };
}
