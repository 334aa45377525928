/**
 * What there is to say about a simulated schedule: as JSON, as a table, in sentences and as a page.
 *
 * @module
 */

import { sizesOf } from "../schedules/check/sizes.ts";
import { formatAction, type Kind, kinds, type Schedule } from "../schedules/schedule.ts";
import type { Costs } from "../schedules/price/costs.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { peakMemory } from "../schedules/price/peak_memory.ts";
import { memoryTimeline } from "../schedules/price/memory_timeline.ts";
import type { Neighbours, SumWay } from "../schedules/price/replicas.ts";
import { simulate, type Simulation } from "../schedules/price/simulate.ts";
import { ganttFigure } from "./gantt.ts";
import type { Section, Table } from "./html.ts";
import { keptText } from "./prediction_errors.ts";
import { variantOf } from "./variant.ts";

export { variantOf };

/** What there is to say of a pipeline with replicas. */
export interface Replicated {
  /** How many there are. */
  readonly replicas: number;
  /** Hosts that their devices are on. */
  readonly hosts: number;
  /** What neighbours on a host are. */
  readonly neighbours: Neighbours;
  /** How gradients are summed. */
  readonly way: SumWay;
  /** Whether each replica updates a part of the parameters alone. */
  readonly shardOptimizer: boolean;
  /** The step without the time of sums: it is longer by what of them is exposed. */
  readonly withoutSums: number;
  /** The step by plain 1F1B with its sums after each rank's last action. */
  readonly plain: number;
}

/** A schedule and what it costs. */
export interface Priced {
  /** The schedule. */
  schedule: Schedule;
  /** Its simulation. */
  simulation: Simulation;
  /** The most activations that each rank holds at once, which is what papers compare. */
  peakActivations: readonly number[];
  /** Where there are several replicas. */
  replicated?: Replicated;
}

/**
 * Simulates a schedule.
 *
 * @throws {UserError} What `validate()` says, when the schedule cannot run to its end.
 */
export function priceOf(schedule: Schedule, costs: Costs, memory: Memory): Priced {
  const alone: Memory = (stage) => {
    const { activations, released } = memory(stage);
    return { activations, released, derivatives: 0 };
  };
  const simulation = simulate(schedule, costs, memory);
  return { schedule, simulation, peakActivations: peakMemory(schedule, alone) };
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const time = (value: number) => String(Number(value.toPrecision(6)));

/** The project's JSON of a simulated schedule, version 1; actions carry their times. */
export function scheduleJson({ schedule, simulation, peakActivations, replicated }: Priced): Record<string, unknown> {
  const { name, placement, policy = null, slower = null } = schedule;
  const { devices, stages, microbatches, split: twoStage, width } = sizesOf(schedule);
  const { makespan, bubbleRatio, steadyBubbleRatio, spans, busy, peak, criticalPath } = simulation;
  const actions: Record<string, unknown>[][] = Array.from({ length: devices }, () => []);
  for (const { rank, action, start, end } of spans) actions[rank].push({ action: formatAction(action), start, end });
  return {
    schema: 1,
    mode: "simulated",
    schedule: name,
    devices,
    stages,
    microbatches,
    placement,
    twoStage,
    policy,
    width,
    slower,
    makespan,
    bubbleRatio,
    steadyBubbleRatio,
    busy,
    peak,
    peakActivations,
    criticalPath: criticalPath.map(({ action }) => formatAction(action)),
    actions,
    ...replicated && { replicated, sums: simulation.sums },
  };
}

/** The sums of the rank that has most of them, and of these what the step is longer by. */
export function sumsOf({ simulation: { sums, makespan }, replicated }: Priced): { time: number; exposed: number } {
  const byRank = new Map<number, number>();
  for (const { rank, start, end } of sums) byRank.set(rank, (byRank.get(rank) ?? 0) + end - start);
  const exposed = replicated ? Math.max(0, makespan - replicated.withoutSums) : 0;
  return { time: Math.max(0, ...byRank.values()), exposed: exposed > 1e-9 * makespan ? exposed : 0 };
}

/** Where replicas are, and what their sums add to a step, in sentences; empty where there is one. */
export function replicasText(priced: Priced): string {
  const { replicated, simulation: { makespan } } = priced;
  if (!replicated) return "";
  const { replicas, hosts, neighbours, way, shardOptimizer, plain } = replicated;
  const { time: sums, exposed } = sumsOf(priced);
  const beside = neighbours === "ranks" ? "ranks of a replica" : "replicas of a rank";
  const place = hosts > 1 ? ` on ${hosts} hosts, neighbours on a host are ${beside}` : "";
  const what = shardOptimizer ? "sums, to a part for each replica's optimizer," : "sums";
  const hidden = sums > 0 ? ` (${percent(Math.max(0, 1 - exposed / sums))} hidden)` : "";
  return `${replicas} replicas${place}; ${what} ${way}: up to ${time(sums)} a rank, the step is longer by ${
    time(exposed)
  }${hidden}. ` +
    `Plain 1F1B with its sums after it takes ${time(plain)}: ${(plain / makespan).toFixed(3)} times as long`;
}

/** One line a schedule; speed-ups are against the first. */
export function scheduleTable(rows: readonly Priced[]): Table {
  const isSummed = rows.some(({ replicated }) => replicated);
  return {
    columns: [
      "schedule",
      "makespan",
      "speed-up",
      "bubble",
      "steady bubble",
      ...isSummed ? ["sums", "exposed"] : [],
      "peak memory by rank",
      "activations alone",
    ],
    rows: rows.map((row) => [row, sumsOf(row)] as const).map((
      [{ schedule, simulation, peakActivations }, { time: sums, exposed }],
    ) => [
      variantOf(schedule),
      time(simulation.makespan),
      simulation.makespan > 0 ? (rows[0].simulation.makespan / simulation.makespan).toFixed(3) : "-",
      percent(simulation.bubbleRatio),
      percent(simulation.steadyBubbleRatio),
      ...isSummed ? [time(sums), time(exposed)] : [],
      peaks(simulation.peak),
      peaks(peakActivations),
    ]),
  };
}

function peaks(peak: readonly number[]): string {
  if (peak.length <= 8) return peak.map(time).join(" / ");
  const [least, most] = [Math.min(...peak), Math.max(...peak)];
  return least === most ? `${time(most)} on each` : `${time(least)} to ${time(most)}`;
}

/** What the critical path consists of, in one sentence. */
export function criticalPathText({ criticalPath, makespan, sums: summed }: Simulation): string {
  const sums: Partial<Record<Kind, number>> = {};
  let busy = 0;
  for (const { action, start, end } of criticalPath) {
    sums[action.kind] = (sums[action.kind] ?? 0) + end - start;
    busy += end - start;
  }
  const parts = kinds.filter((kind) => sums[kind]).map((kind) => `${kind} ${time(sums[kind]!)}`);
  if (makespan - busy > 1e-9 * makespan) {
    parts.push(`transfers${summed.length > 0 ? ", sums" : ""} and tail ${time(makespan - busy)}`);
  }
  return [`Critical path: ${criticalPath.length} actions`, ...parts].join(", ");
}

/** What is known of the error of simulations with the times of a cluster file, in a sentence. */
export function clusterErrorText(): string {
  return `How far these steps may be off is not known: their times are of a file, and ${keptText()}`;
}

/** By how much 2BP makes the step longer, where it does: `Schedule.slower` in a sentence. */
export function slowerText({ policy, slower }: Schedule): string {
  return slower === undefined
    ? ""
    : `With policy ${policy}, 2BP is ${percent(slower)} slower than without in these costs\n`;
}

/** A drawing for each schedule, all on the same axes, and the table. */
export function scheduleSections(rows: readonly Priced[], memory: Memory): Section[] {
  const until = Math.max(...rows.map(({ simulation }) => simulation.makespan));
  const memoryUntil = Math.max(...rows.flatMap(({ simulation }) => simulation.peak));
  const sections = rows.map((row) => [row, row.schedule, row.simulation] as const).map((
    [row, schedule, simulation],
  ) => ({
    heading: `${variantOf(schedule)}: ${time(simulation.makespan)} units, bubble ${percent(simulation.bubbleRatio)}`,
    name: variantOf(schedule),
    text: [replicasText(row), criticalPathText(simulation)].filter(Boolean).join(". "),
    figure: ganttFigure(schedule, simulation, {
      memory: memoryTimeline(schedule, simulation.spans, memory),
      until,
      memoryUntil,
    }),
  }));
  return [...sections, { heading: "In numbers", table: scheduleTable(rows) }];
}
