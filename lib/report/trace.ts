import { formatAction, type Schedule } from "../schedules/actions.ts";
import { memoryCategories } from "../schedules/memory.ts";
import type { RankMemory } from "../schedules/memory_timeline.ts";
import { type Timeline, transfersOf } from "./timeline.ts";

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
 * rank with every action at its real duration, a flow arrow for every transfer between ranks, and memory counters.
 * Simulated and measured steps are written alike.
 */
export function chromeTrace(schedule: Schedule, timeline: Timeline, options: TraceOptions = {}): string {
  const { microseconds = 1000, memory, title = schedule.name } = options;
  const events: Record<string, unknown>[] = [{ ph: "M", pid: 0, name: "process_name", args: { name: title } }];
  for (let rank = 0; rank < schedule.devices; rank++) {
    events.push({ ph: "M", pid: 0, tid: rank, name: "thread_name", args: { name: `device ${rank}` } });
    events.push({ ph: "M", pid: 0, tid: rank, name: "thread_sort_index", args: { sort_index: rank } });
  }
  for (const { rank, action, start, end } of timeline.spans) {
    const { kind, stage, microbatches } = action;
    events.push({
      ph: "X",
      pid: 0,
      tid: rank,
      ts: start * microseconds,
      dur: (end - start) * microseconds,
      name: formatAction(action),
      cat: kind,
      args: { stage, microbatches },
    });
  }
  transfersOf(schedule, timeline.spans).forEach(({ from, to }, id) => {
    const name = from.action.kind === "F" ? "activation" : "gradient";
    // An arrow belongs to the slice around its time, so it must leave a little before its slice ends.
    const leave = from.end - Math.min(0.001 / microseconds, (from.end - from.start) / 2);
    const common = { pid: 0, name, cat: "transfer", id };
    events.push({ ...common, ph: "s", tid: from.rank, ts: leave * microseconds });
    events.push({ ...common, ph: "f", bp: "e", tid: to.rank, ts: to.start * microseconds });
  });
  memory?.forEach(({ points }, rank) => {
    for (const { time, held } of points) {
      const args = Object.fromEntries(memoryCategories.map((category) => [category, held[category]]));
      events.push({ ph: "C", pid: 0, ts: time * microseconds, name: `memory of device ${rank}`, args });
    }
  });
  const lines = events.map((event) => JSON.stringify(event)).join(",\n");
  return `{"displayTimeUnit":"ms","traceEvents":[\n${lines}\n]}\n`;
}
