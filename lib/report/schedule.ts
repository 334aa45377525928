/**
 * What there is to say about a simulated schedule: as JSON, as a table, in sentences and as a page.
 *
 * @module
 */

import { sizesOf } from "../schedules/check/sizes.ts";
import { formatAction, type Kind, type Schedule } from "../schedules/schedule.ts";
import type { Costs } from "../schedules/price/costs.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { peakMemory } from "../schedules/price/peak_memory.ts";
import { memoryTimeline } from "../schedules/price/memory_timeline.ts";
import { simulate, type Simulation } from "../schedules/price/simulate.ts";
import { ganttFigure } from "./gantt.ts";
import type { Section, Table } from "./html.ts";
import { variantOf } from "./variant.ts";

export { variantOf };

/** A schedule and what it costs. */
export interface Priced {
  /** The schedule. */
  schedule: Schedule;
  /** Its simulation. */
  simulation: Simulation;
  /** The most activations that each rank holds at once, which is what papers compare. */
  peakActivations: readonly number[];
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
export function scheduleJson({ schedule, simulation, peakActivations }: Priced): Record<string, unknown> {
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
  };
}

/** One line a schedule; speed-ups are against the first. */
export function scheduleTable(rows: readonly Priced[]): Table {
  return {
    columns: [
      "schedule",
      "makespan",
      "speed-up",
      "bubble",
      "steady bubble",
      "peak memory by rank",
      "activations alone",
    ],
    rows: rows.map(({ schedule, simulation, peakActivations }) => [
      variantOf(schedule),
      time(simulation.makespan),
      simulation.makespan > 0 ? (rows[0].simulation.makespan / simulation.makespan).toFixed(3) : "-",
      percent(simulation.bubbleRatio),
      percent(simulation.steadyBubbleRatio),
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
export function criticalPathText({ criticalPath, makespan }: Simulation): string {
  const sums: Partial<Record<Kind, number>> = {};
  let busy = 0;
  for (const { action, start, end } of criticalPath) {
    sums[action.kind] = (sums[action.kind] ?? 0) + end - start;
    busy += end - start;
  }
  const parts = (["F", "I", "W", "B"] as Kind[]).filter((kind) => sums[kind]).map((kind) =>
    `${kind} ${time(sums[kind]!)}`
  );
  if (makespan - busy > 1e-9 * makespan) parts.push(`transfers and tail ${time(makespan - busy)}`);
  return [`Critical path: ${criticalPath.length} actions`, ...parts].join(", ");
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
  const sections = rows.map(({ schedule, simulation }) => ({
    heading: `${variantOf(schedule)}: ${time(simulation.makespan)} units, bubble ${percent(simulation.bubbleRatio)}`,
    name: variantOf(schedule),
    text: criticalPathText(simulation),
    figure: ganttFigure(schedule, simulation, {
      memory: memoryTimeline(schedule, simulation.spans, memory),
      until,
      memoryUntil,
    }),
  }));
  return [...sections, { heading: "In numbers", table: scheduleTable(rows) }];
}
