import type { Schedule } from "../schedules/schedule.ts";
import type { Span } from "../schedules/price/simulate.ts";
import { sourceOf } from "../schedules/check/walk.ts";

/** What drawings need of a step, simulated or measured: `simulate()` returns it, and a run can. */
export interface Timeline {
  /** Every action with its times, rank by rank, in the order of their lists. */
  readonly spans: readonly Span[];
  /** End of the slowest rank. */
  readonly makespan: number;
  /** Chain of actions that sets the makespan, first to last. */
  readonly criticalPath?: readonly Span[];
}

/** An output that one rank makes and another uses. */
export interface Transfer {
  /** Who makes it. */
  readonly from: Span;
  /** Who uses it. */
  readonly to: Span;
}

/** Every transfer between two ranks. */
export function transfersOf({ stages, microbatches }: Schedule, spans: readonly Span[]): Transfer[] {
  const made = new Map<number, Span>();
  const key = (kind: string, stage: number, microbatch: number) =>
    (kind === "F" ? 0 : stages * microbatches) + stage * microbatches + microbatch;
  for (const span of spans) {
    const { kind, stage, microbatches: [microbatch] } = span.action;
    if (kind !== "W") made.set(key(kind, stage, microbatch), span);
  }
  const transfers: Transfer[] = [];
  for (const to of spans) {
    const source = sourceOf(to.action, stages);
    const from = source && made.get(key(source.kind, source.stage, source.microbatch));
    if (from && from.rank !== to.rank) transfers.push({ from, to });
  }
  return transfers;
}
