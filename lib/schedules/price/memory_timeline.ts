import type { Schedule } from "../schedule.ts";
import { type Held, holdersOf, totalHeld } from "./holder.ts";
import { type Memory, unitMemory } from "./memory.ts";
import type { Span } from "./simulate.ts";
import { checkSpans } from "../check/spans.ts";
import { lower } from "../program.ts";

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
 * activations that no W needs, and a W or B gives back the rest. See `StageMemory` for what else there is; the end of the step,
 * which takes no time here, is left out.
 *
 * @param spans Every action of the schedule with its times, rank by rank in order: of a simulation, or of a run.
 * @throws {UserError} What `validate()` says of the schedule, for spans of another one, and for an amount of memory that is none.
 */
export function memoryTimeline(schedule: Schedule, spans: readonly Span[], memory: Memory = unitMemory): RankMemory[] {
  const program = lower(schedule);
  checkSpans(program, spans);
  const holders = holdersOf(program, memory, program);
  const points: MemoryPoint[][] = holders.map(({ held }) => [{ time: 0, held: { ...held } }]);
  for (const { rank, action, start, end } of spans) {
    holders[rank].start(action);
    points[rank].push({ time: start, held: { ...holders[rank].held } });
    holders[rank].end(action);
    points[rank].push({ time: end, held: { ...holders[rank].held } });
  }
  return points.map((list) => {
    let most = list[0];
    for (const point of list) if (totalHeld(point.held) > totalHeld(most.held)) most = point;
    return { points: list, peak: totalHeld(most.held), atPeak: most.held };
  });
}
