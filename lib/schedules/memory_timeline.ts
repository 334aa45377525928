import type { Schedule } from "./actions.ts";
import { giveBack, type Held, heldAtRest, type Memory, take, totalHeld, unitMemory } from "./memory.ts";
import type { Span } from "./simulate.ts";

/** What a rank holds from one moment on. */
export interface MemoryPoint {
  /** Time, in the unit of the spans. */
  readonly time: number;
  /** What it holds until the next point, by category. */
  readonly held: Held;
}

/** What one rank holds during a step. */
export interface RankMemory {
  /** In order of time; the first is at 0. */
  readonly points: readonly MemoryPoint[];
  /** The most it holds at once. */
  readonly peak: number;
  /** What that consists of. */
  readonly atPeak: Held;
}

/**
 * What each rank holds over time, by category: an F takes activations, an I takes derivatives and gives back the
 * activations that no W needs, and a W or B gives back the rest.
 *
 * @param spans Every action of the schedule with its times, rank by rank in order: of a simulation, or of a run.
 */
export function memoryTimeline(schedule: Schedule, spans: readonly Span[], memory: Memory = unitMemory): RankMemory[] {
  const stages = Array.from({ length: schedule.stages }, (_, stage) => memory(stage));
  const held = schedule.actions.map((_, rank) => heldAtRest(schedule, rank, memory));
  const points: MemoryPoint[][] = held.map((rest) => [{ time: 0, held: { ...rest } }]);
  for (const { rank, action, start, end } of spans) {
    take(held[rank], action, stages[action.stage]);
    points[rank].push({ time: start, held: { ...held[rank] } });
    giveBack(held[rank], action, stages[action.stage]);
    points[rank].push({ time: end, held: { ...held[rank] } });
  }
  return points.map((list) => {
    let most = list[0];
    for (const point of list) if (totalHeld(point.held) > totalHeld(most.held)) most = point;
    return { points: list, peak: totalHeld(most.held), atPeak: most.held };
  });
}
