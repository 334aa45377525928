/** Makes a {@link Problem} of costs, memory and a placement. */
import { UserError } from "../../errors.ts";
import { type Action, actionMaker, formatAction, type Schedule } from "../schedule.ts";
import { type Costs, delayOf, durationOf, endOf, sumOf, tailOf } from "../price/costs.ts";
import { type Memory, stagesOf } from "../price/memory.ts";
import { peaksOf } from "../price/peak_memory.ts";
import { F, I, lower, type Program, SUM, TIED, W } from "../program.ts";
import { amountsOf, rounded } from "./amounts.ts";
import { inTurnOf } from "./in_turn.ts";
import { type Each, kindsOfSearch, portOf, type Problem, scheduleOf, type Tail } from "./problem.ts";

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
