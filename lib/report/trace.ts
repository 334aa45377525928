import { formatAction, type Schedule } from "../schedules/schedule.ts";
import { categories } from "../memory.ts";
import type { RankMemory } from "../schedules/price/memory_timeline.ts";
import type { Span } from "../schedules/price/simulate.ts";
import type { Clocks } from "../runtime/clocks.ts";
import { checkSpans } from "../schedules/check/spans.ts";
import { lower, type Program } from "../schedules/program.ts";
import { clocksText, type Timeline, type Transfer, transfersOf } from "./timeline.ts";

/** How to write a trace. */
export interface TraceOptions {
  /** Microseconds in a unit of the timeline; default 1000, which shows a unit as a millisecond. */
  microseconds?: number;
  /** What each rank holds, for counters under the tracks. */
  memory?: readonly RankMemory[];
  /** Name of the process; default the name of the schedule. */
  title?: string;
}

/**
 * A step as a trace in Chrome's JSON format, which Perfetto (ui.perfetto.dev) and chrome://tracing open: one track a
 * rank with every action at its real duration, one below it for its sums over replicas, a flow arrow for every transfer between ranks, and memory counters.
 * Simulated and measured steps are written alike.
 *
 * Where the ranks' clocks were compared, that is a label of the process, and under `otherData` in the file: of each rank what was
 * added to its times, its drift in millionths, and how wrong that may be.
 *
 * Times are whole nanoseconds, in microseconds of three decimals: starts and ends are rounded, a duration is their
 * difference. Only an action shorter than a nanosecond is drawn one long, at the cost of what follows. An arrow that would
 * point back in time, as clocks of several devices can have it, is left out.
 *
 * @throws {UserError} What `validate()` says of the schedule, and for times of another one.
 */
export function chromeTrace(schedule: Schedule, timeline: Timeline, options: TraceOptions = {}): string {
  return traceText([{ schedule, timeline, ...options }]);
}

/** A step of several that are to be compared, and how to write it. */
export interface ComparedStep extends TraceOptions {
  /** What ran. */
  readonly schedule: Schedule;
  /** When. */
  readonly timeline: Timeline;
}

/**
 * Several steps as one trace, a process each, one above the other on the same axis: see {@link chromeTrace}.
 *
 * @throws {UserError} As that does.
 */
export function chromeTraces(steps: readonly ComparedStep[]): string {
  return traceText(steps);
}

function traceText(steps: readonly ComparedStep[]): string {
  const events = steps.flatMap((step, pid) => eventsOf(step, pid));
  const lines = events.map((event) => JSON.stringify(event)).join(",\n");
  const clocks = steps.flatMap(({ schedule, title = schedule.name, timeline: { clocks } }) =>
    clocks ? [{ step: title, ...clocksData(clocks) }] : []
  );
  const about = clocks.length > 0 ? `"otherData":${JSON.stringify({ clocks })},` : "";
  return `{"displayTimeUnit":"ms",${about}"traceEvents":[\n${lines}\n]}\n`;
}

/** What was done to the times of each rank, in milliseconds. */
function clocksData(clocks: Clocks) {
  return {
    about: clocksText(clocks),
    errorMs: clocks.error,
    ranks: clocks.peers.map(({ at, offset, drift, error, group }, rank) => ({
      ...{ rank, clock: group, at, offsetMs: offset, driftPpm: drift * 1e6, errorMs: error },
    })),
  };
}

function eventsOf({ schedule, timeline, ...options }: ComparedStep, pid: number): Record<string, unknown>[] {
  const program = lower(schedule);
  checkSpans(program, timeline.spans);
  const { microseconds = 1000, memory, title = schedule.name } = options;
  const nanoseconds = (time: number) => Math.round(time * microseconds * 1000);
  const events: Record<string, unknown>[] = [{ ph: "M", pid, name: "process_name", args: { name: title } }];
  if (timeline.clocks) {
    events.push({ ph: "M", pid, name: "process_labels", args: { labels: clocksText(timeline.clocks) } });
  }
  const { sums = [] } = timeline, ranks = schedule.actions.length;
  const trackOf = (tid: number, name: string, sort_index: number) => {
    events.push({ ph: "M", pid, tid, name: "thread_name", args: { name } });
    events.push({ ph: "M", pid, tid, name: "thread_sort_index", args: { sort_index } });
  };
  for (let rank = 0; rank < ranks; rank++) {
    trackOf(rank, `rank ${rank}`, sums.length > 0 ? 2 * rank : rank);
    if (sums.length > 0) trackOf(ranks + rank, `sums of rank ${rank}`, 2 * rank + 1);
  }
  for (const { rank, stage, start, end } of sums) {
    const ts = nanoseconds(start), dur = Math.max(nanoseconds(end), ts + 1) - ts;
    const name = `sum of stage ${stage}`;
    events.push({ ph: "X", pid, tid: ranks + rank, ts: ts / 1000, dur: dur / 1000, name, cat: "sum", args: { stage } });
  }
  const transfers = transfersOf(program, timeline.spans);
  const slices = slicesOf(program, timeline.spans, transfers, nanoseconds);
  for (const span of timeline.spans) {
    const { rank, action } = span;
    const { kind, stage, microbatches } = action;
    const { start, end } = slices.get(span)!;
    events.push({
      ph: "X",
      pid,
      tid: rank,
      ts: start / 1000,
      dur: (end - start) / 1000,
      name: formatAction(action),
      // Whoever reads such a trace again finds the first step, and not several of them as one run.
      cat: pid === 0 ? kind : `compared ${kind}`,
      args: { stage, microbatches },
    });
  }
  transfers.forEach(({ from, to }, at) => {
    const arrow = arrowBetween(slices.get(from)!, slices.get(to)!);
    if (!arrow) return;
    const name = from.action.kind === "F" ? "activation" : "gradient";
    const id = pid * 2 ** 24 + at; // arrows of one number are one, whatever their process
    const common = { pid, name, cat: "transfer", id };
    events.push({ ...common, ph: "s", tid: from.rank, ts: arrow.leaves / 1000 });
    events.push({ ...common, ph: "f", bp: "e", tid: to.rank, ts: arrow.arrives / 1000 });
  });
  memory?.forEach(({ points }, rank) => {
    for (const { time, held } of points) {
      const args = Object.fromEntries(categories.map((category) => [category, held[category]]));
      events.push({ ph: "C", pid, ts: nanoseconds(time) / 1000, name: `memory of rank ${rank}`, args });
    }
  });
  return events;
}

/** When an action is drawn, in whole nanoseconds. */
interface Slice {
  readonly start: number;
  readonly end: number;
}

/**
 * Slices of a track follow one another and have some length: Perfetto drops one that reaches into the next, as passes of
 * a GPU can by a little, and hangs arrows on the last slice that began, so that one without length would take those of the
 * slice beginning with it. What waits for a slice that therefore ends later begins later too, or its arrow would be lost.
 */
function slicesOf(
  { schedule, order, rank: rankOf, first }: Program,
  spans: readonly Span[],
  transfers: readonly Transfer[],
  nanoseconds: (time: number) => number,
): Map<Span, Slice> {
  const lists: Span[][] = schedule.actions.map(() => []);
  for (const span of spans) lists[span.rank][span.index] = span;
  const sources = new Map(transfers.map(({ from, to }) => [to, from]));
  const slices = new Map<Span, Slice>();
  for (const node of order) {
    const rank = rankOf[node], index = node - first[rank];
    const span = lists[rank][index];
    if (!span) continue; // the end of the step, which is not drawn
    const source = sources.get(span);
    const start = Math.max(
      nanoseconds(span.start),
      index > 0 ? slices.get(lists[rank][index - 1])!.end : -Infinity,
      // Measured clocks may disagree.
      source && nanoseconds(source.end) <= nanoseconds(span.start) ? slices.get(source)!.end : -Infinity,
    );
    slices.set(span, { start, end: Math.max(nanoseconds(span.end), start + 1) });
  }
  return slices;
}

/**
 * Moments within two slices, not at their ends where there is room, so that nobody takes a neighbour for the slice: late
 * in the first, early in the second, and not backwards.
 */
function arrowBetween(from: Slice, to: Slice): { leaves: number; arrives: number } | undefined {
  const first = ({ start, end }: Slice) => Math.min(start + 1, end - 1);
  const last = ({ end }: Slice) => end - 1;
  const arrives = Math.min(Math.max(first(to), last(from)), last(to));
  const leaves = Math.max(Math.min(last(from), arrives), first(from));
  return leaves <= arrives ? { leaves, arrives } : undefined;
}
