import type { Mode } from "../gpu/devices.ts";
import type { Span, SumSpan } from "../schedules/price/simulate.ts";
import type { Clocks } from "../runtime/clocks.ts";
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
  /** How the clocks of its ranks were put on one, where they were compared: said in drawings, and in the metadata of traces. */
  readonly clocks?: Clocks;
  /** What devices its times are of, in milliseconds, where a step was run: drawings say it. Absent for one that is simulated. */
  readonly mode?: Mode;
}

/** What drawings say of the clocks of a step's ranks, in a line. */
export function clocksText({ peers, error }: Clocks): string {
  if (error === 0) {
    return peers.length > 1 ? "all ranks read one clock" : "the rank's own clock";
  }
  return `clocks of ${1 + Math.max(...peers.map(({ group }) => group))} devices aligned, \u00b1${
    (error * 1000).toPrecision(3).replace(/\.0+$/, "")
  } \u00b5s`;
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
