/**
 * A traced step, explained: tables, figures and the JSON of what `explainProfile()` gives.
 *
 * @module
 */
import type { Segment, StepAccount } from "../measure/explain/account.ts";
import type { Explanation } from "../measure/explain/explain.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Span } from "../schedules/price/simulate.ts";
import { formatAction, kinds } from "../schedules/schedule.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { rangeText } from "./certainty.ts";
import { accountFigure, alternativeName, gainsFigure } from "./explanation_figures.ts";
import { ganttFigure } from "./gantt.ts";
import { ganttText, type GanttTextOptions } from "./gantt_text.ts";
import type { Section, Table } from "./html.ts";
import { barText } from "./prediction_errors.ts";
import type { Timeline } from "./timeline.ts";
import { chromeTraces } from "./trace.ts";
import { variantOf } from "./variant.ts";

const ms = (time: number) => time.toFixed(2);
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** The step of median length. */
export function typicalStep({ steps, typical }: Explanation): StepAccount {
  return steps[typical];
}

/** What ran, how long it took, and how far the simulator is from that: one line. */
export function explanationTitle({ schedule, measured, simulation, error, steps }: Explanation): string {
  const { devices, stages, microbatches } = sizesOf(schedule);
  const off = `${error < 0 ? "-" : "+"}${percent(Math.abs(error))}`;
  return `${variantOf(schedule)} on ${devices} ranks, ${stages} stages, ${microbatches} micro-batches: ${
    ms(measured)
  } ms ` +
    `traced (median of ${steps.length}), ${ms(simulation.makespan)} ms simulated (${off})`;
}

/** The traced step and the simulated one as drawings want them, both in milliseconds from their starts. */
export function explainedTimelines(explanation: Explanation): { traced: Timeline; simulated: Timeline } {
  const { schedule, simulation, hosts } = explanation, step = typicalStep(explanation);
  const computed = step.segments.flatMap((list) => list.filter(({ kind }) => kind === "compute"));
  const found = new Map(computed.map((segment) => [formatAction(segment.action!), segment]));
  let before = 0; // an action without length, as an I that has nothing to do, stands where the one before it ended
  const spans = schedule.actions.flatMap((list, rank) => {
    before = 0;
    return list.map((action, index): Span => {
      const { start, end } = found.get(formatAction(action)) ?? { start: before, end: before };
      before = end;
      return { rank, index, action, start, end };
    });
  });
  const critical = new Set(
    step.criticalPath.filter(({ kind }) => kind === "compute").map(({ action }) => formatAction(action!)),
  );
  const traced = {
    spans,
    makespan: step.length,
    criticalPath: spans.filter(({ action }) => critical.has(formatAction(action))).sort((a, b) => a.start - b.start),
  };
  // What the host takes stands at the beginning of an action there, and is no work.
  const own = new Map(simulation.spans.map((span) => [span, { ...span, start: span.start + hosts[span.rank] }]));
  const simulated = {
    spans: [...own.values()],
    makespan: simulation.makespan,
    criticalPath: simulation.criticalPath.map((span) => own.get(span)!),
  };
  return { traced, simulated };
}

/** The traced step above the simulated one, for a terminal, on one axis of milliseconds. */
export function explanationText(explanation: Explanation, options: GanttTextOptions = {}): string {
  const { traced, simulated } = explainedTimelines(explanation), { schedule } = explanation;
  const until = Math.max(traced.makespan, simulated.makespan);
  const draw = (timeline: Timeline) => ganttText(schedule, timeline, { ...options, until });
  return `traced, ${typicalStep(explanation).name}, ${ms(traced.makespan)} ms\n${draw(traced)}` +
    `simulated, ${ms(simulated.makespan)} ms\n${draw(simulated)}`;
}

/** Where the step goes, a row for each rank: all columns but the first add up to the last. */
export function accountTable(explanation: Explanation): Table {
  const { name, length, ranks } = typicalStep(explanation);
  const used = kinds.filter((kind) => ranks.some(({ compute }) => compute[kind] > 0));
  return {
    columns: ["rank", ...used, "waits", "messages", "host", "tail", "idle", "step, ms"],
    rows: ranks.map(({ compute, waiting, messages, host, tail, idle }, rank) => [
      rank,
      ...used.map((kind) => ms(compute[kind])),
      ...[waiting, messages, host, tail, idle, length].map(ms),
    ]),
    notes: [
      `Milliseconds of ${name}. Waits: for an action of another rank that had not ended. Messages: it had, and what it made was not ` +
      "there. Host: nothing was missing, and nothing ran. Tail: after the last action. Idle: done before the others.",
    ],
  };
}

/** The bubble by cause: which actions waited for which, for how long, and what went on there meanwhile. */
export function waitsTable(explanation: Explanation): Table {
  const { ranks, length } = typicalStep(explanation);
  const rows = ranks.flatMap(({ waits }, rank) => {
    const groups = new Map<string, { cells: string[]; count: number; time: number; causes: Map<string, number> }>();
    for (const { action, for: source, of, time, causes } of waits) {
      const cells = [`${action.kind} of stage ${action.stage}`, `${source.kind} of stage ${source.stage}, rank ${of}`];
      const key = cells.join(), group = groups.get(key) ?? { cells, count: 0, time: 0, causes: new Map() };
      groups.set(key, group);
      group.count++;
      group.time += time;
      for (const { kind, rank: where, action: by, time } of causes) {
        const what = kind === "compute"
          ? `rank ${where} computes ${by.kind}${
            explanation.schedule.placement.length > ranks.length ? ` of stage ${by.stage}` : ""
          }`
          : kind === "message"
          ? `message to rank ${where}`
          : `host of rank ${where}`;
        group.causes.set(what, (group.causes.get(what) ?? 0) + time);
      }
    }
    return [...groups.values()].sort((a, b) => b.time - a.time).map(({ cells, count, time, causes }) => [
      rank,
      ...cells,
      count,
      ms(time),
      percent(time / length),
      causesText(causes, time),
    ]);
  });
  return {
    columns: ["rank", "what waits", "for", "times", "ms", "share of step", "because, ms"],
    rows,
    ...rows.length === 0 && { notes: ["No rank waits for another."] },
  };
}

function causesText(causes: ReadonlyMap<string, number>, total: number): string {
  const sorted = [...causes].sort((a, b) => b[1] - a[1]);
  const told = sorted.filter(([, time], at) => at < 4 && time > 0.01 * total);
  const rest = total - told.reduce((sum, [, time]) => sum + time, 0);
  const texts = told.map(([what, time]) => `${what} ${ms(time)}`);
  return [...texts, ...rest >= 0.005 ? [`other ${ms(rest)}`] : []].join(", ");
}

/** What the critical path of the traced step consists of, largest first: it adds up to the step. */
export function criticalTable(explanation: Explanation): Table {
  const { criticalPath, length } = typicalStep(explanation);
  const groups = new Map<string, { rank: number; count: number; time: number }>();
  for (const segment of criticalPath) {
    const key = `${segment.rank} ${whatOf(segment)}`,
      group = groups.get(key) ?? { rank: segment.rank, count: 0, time: 0 };
    groups.set(key, group);
    group.count++;
    group.time += segment.end - segment.start;
  }
  const rows = [...groups].sort(([, a], [, b]) => b.time - a.time).map(([key, { rank, count, time }]) => [
    key.slice(key.indexOf(" ") + 1),
    rank,
    count,
    ms(time),
    percent(time / length),
  ]);
  return { columns: ["on the critical path", "rank", "times", "ms", "share of step"], rows };
}

function whatOf({ kind, action, source }: Segment): string {
  if (kind === "compute") return `${action!.kind} of stage ${action!.stage}`;
  return kind === "message" ? `message from rank ${source!.rank}` : kind;
}

/** Traced beside simulated: the step, and what each rank computes in it. */
export function comparisonTable(explanation: Explanation): Table {
  const { ranks, length } = typicalStep(explanation), { traced, simulated } = explainedTimelines(explanation);
  const busy = ({ spans }: Timeline, rank: number) =>
    spans.filter((span) => span.rank === rank).reduce((sum, { start, end }) => sum + end - start, 0);
  const row = (what: string, a: number, b: number) => [what, ms(a), ms(b), a > 0 ? percent(b / a - 1) : "-"];
  return {
    columns: ["", "traced, ms", "simulated, ms", "difference"],
    rows: [
      row("step", length, simulated.makespan),
      ...ranks.map((_, rank) => row(`rank ${rank} computes`, busy(traced, rank), busy(simulated, rank))),
    ],
    notes: ["Simulated with the medians of all steps."],
  };
}

/** What else would bring what, fastest first; at most `most` rows. */
export function gainsTable(explanation: Explanation, most = 15): Table {
  const { alternatives, error, schedule, simulation } = explanation;
  const shown = alternatives.slice(0, most), left = alternatives.length - shown.length;
  return {
    columns: ["instead", "step, ms", "gain", "95 % interval", "with the simulator's error", "activations"],
    rows: shown.map((each) => [
      alternativeName(each),
      barText(each.makespan, Math.abs(error) * each.makespan, 2),
      each.gain.toFixed(3),
      rangeText(each.interval),
      rangeText(each.range),
      each.activations,
    ]),
    notes: [
      `Simulated with the traced costs, against ${variantOf(schedule)} simulated so (${
        ms(simulation.makespan)
      } ms): a gain above 1 ` +
      "is faster. Intervals: bootstrap over the traced costs.",
      `The simulator misses the traced step by ${
        percent(Math.abs(error))
      }: that is +-, and by so much the next column is wider. The errors that bench agreement keeps are of other runs, and not ` +
      "used here. Activations: the " +
      "most, of a micro-batch on a stage, that a rank holds.",
      ...left > 0 ? [`${left} slower ones are left out here; --json has them.`] : [],
    ],
  };
}

/** What to make of it, in a sentence or two. */
export function verdictText({ alternatives, best, schedule, error, activations: ran }: Explanation): string {
  const first = alternatives.find((each) => each.schedule === best && each.kind !== "partition");
  if (!first) return `With these costs nothing tried is faster than ${variantOf(schedule)}.`;
  const { name, gain, range: [low, high], activations } = first;
  const sure = low > 1
    ? "faster even with the simulator's error"
    : "within what costs and simulator leave open: try it before you rely on it";
  const held = activations > ran
    ? ` A rank holds up to ${activations} activations, where it held ${ran} (--cap ${ran}).`
    : "";
  const off = Math.abs(error) > 0.05
    ? ` The simulator is ${percent(Math.abs(error))} off this trace; trace more steps.`
    : "";
  return `Fastest: ${name}, gain ${gain.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)}), ${sure}.${held}${off}`;
}

/** A page: both steps on one axis, where the time goes, why, and what else would bring what. */
export function explanationSections(explanation: Explanation): Section[] {
  const { schedule, notes } = explanation, { traced, simulated } = explainedTimelines(explanation);
  const until = Math.max(traced.makespan, simulated.makespan), { name } = typicalStep(explanation);
  const unit = "ms";
  return [
    {
      heading: `Traced: ${name}, ${ms(traced.makespan)} ms`,
      name: "traced",
      text: [explanationTitle(explanation), verdictText(explanation), ...notes].join("\n\n"),
      figure: ganttFigure(schedule, traced, { until, unit, mode: "traced" }),
    },
    {
      heading: `Simulated with the same costs: ${ms(simulated.makespan)} ms`,
      name: "simulated",
      figure: ganttFigure(schedule, simulated, { until, unit }),
      table: comparisonTable(explanation),
    },
    {
      heading: "Where the step goes",
      name: "account",
      figure: accountFigure(explanation),
      table: accountTable(explanation),
    },
    { heading: "What ranks wait for", name: "waits", table: waitsTable(explanation) },
    { heading: "The critical path", name: "critical-path", table: criticalTable(explanation) },
    {
      heading: "What else would bring",
      name: "gains",
      figure: gainsFigure(explanation),
      table: gainsTable(explanation),
    },
  ];
}

/** Both steps as one trace for ui.perfetto.dev: two processes, a track a rank. */
export function explanationTrace(explanation: Explanation): string {
  const { schedule } = explanation, { traced, simulated } = explainedTimelines(explanation);
  return chromeTraces([
    { schedule, timeline: traced, title: `traced, ${typicalStep(explanation).name}` },
    { schedule, timeline: simulated, title: "simulated" },
  ]);
}

/** The JSON of an explanation, version 1; times in milliseconds. */
export function explanationJson(explanation: Explanation): Record<string, unknown> {
  const { schedule, steps, typical, measured, simulation, error, activations, alternatives, best, notes } = explanation;
  const text = (segment: Segment) => ({
    what: segment.kind,
    rank: segment.rank,
    ...segment.action && { action: formatAction(segment.action) },
    ...segment.source && { from: segment.source.rank },
    start: segment.start,
    end: segment.end,
  });
  return {
    schema: 1,
    schedule: schedule.name,
    policy: schedule.policy ?? null,
    measured,
    simulated: simulation.makespan,
    error,
    typical: steps[typical].name,
    activations,
    steps: steps.map(({ name, length, ranks, criticalPath }) => ({
      name,
      length,
      ranks: ranks.map(({ waits, ...sums }) => ({
        ...sums,
        waits: waits.map(({ action, for: source, of, time, causes }) => ({
          action: formatAction(action),
          for: formatAction(source),
          of,
          time,
          causes: causes.map(({ kind, rank, action, time }) => ({ kind, rank, action: formatAction(action), time })),
        })),
      })),
      criticalPath: criticalPath.map(text),
    })),
    alternatives: alternatives.map(({ schedule: { policy = null, name: base }, ...each }) => ({
      ...each,
      within: Math.abs(error) * each.makespan,
      schedule: base,
      policy,
    })),
    best: { schedule: best.name, policy: best.policy ?? null, csv: toCsv(best) },
    notes,
  };
}
