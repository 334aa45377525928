import type { Span, SumSpan } from "../schedules/price/simulate.ts";
import { isMessage, type Program } from "../schedules/program.ts";

/** What drawings need of a step, simulated or measured: `simulate()` returns it, and a run can. */
export interface Timeline {
  /** Every action with its times, rank by rank, in the order of their lists. */
  readonly spans: readonly Span[];
  /** End of the slowest rank. */
  readonly makespan: number;
  /** Sums of gradients over replicas, where there are several: drawn on a track of their own under their rank's. */
  readonly sums?: readonly SumSpan[];
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

/** Every transfer of an activation or a gradient between two ranks. */
export function transfersOf(program: Program, spans: readonly Span[]): Transfer[] {
  const spanOf = new Map(spans.map((span) => [program.first[span.rank] + span.index, span]));
  const transfers: Transfer[] = [];
  for (const [edge, source] of program.from.entries()) {
    const from = spanOf.get(source), to = spanOf.get(program.to[edge]);
    if (from && to && isMessage(program, edge)) transfers.push({ from, to });
  }
  return transfers;
}
