import type { Action, Schedule } from "../schedules/schedule.ts";
import type { Span, SumSpan } from "../schedules/price/simulate.ts";
import { checkSpans } from "../schedules/check/spans.ts";
import { lower } from "../schedules/program.ts";
import { clocksText, type Timeline } from "./timeline.ts";

/** How to draw in a terminal. */
export interface GanttTextOptions {
  /** Columns to use; default 100. */
  width?: number;
  /** Whether to colour with ANSI sequences; default false. */
  colour?: boolean;
  /** Where the time axis ends, for drawings that are to be compared: all of the width is then so much time. */
  until?: number;
}

/** Foreground and background in the 256 colours of a terminal, near those of the figures; the last of sums. */
const ansiOfSums = "38;5;231;48;5;59";
const ansi = {
  F: "38;5;231;48;5;25",
  I: "38;5;16;48;5;221",
  W: "38;5;16;48;5;72",
  B: "38;5;16;48;5;175",
  R: "38;5;16;48;5;153",
};

/**
 * A step as lines of text: one line a rank, each action its kind and micro-batch over its time, blanks where the rank
 * idles, and a scale below, under it how well clocks of several devices agree, where that is known. Sums over replicas stand in a line of their own below their rank's, each S and its stage. Where there is no room for names, kinds alone remain, in lower case for any but the first
 * stage of a rank.
 *
 * @throws {UserError} What `validate()` says of the schedule, and for times of another one.
 *
 * @example
 * ```ts
 * import { ganttText, generate, simulate } from "twobp";
 *
 * const schedule = generate("naive", { devices: 2 });
 * console.log(ganttText(schedule, simulate(schedule), { width: 40 }));
 * ```
 */
export function ganttText(schedule: Schedule, timeline: Timeline, options: GanttTextOptions = {}): string {
  checkSpans(lower(schedule), timeline.spans);
  const { width = 100, colour = false } = options;
  const label = (rank: number) => `rank ${rank} `.padStart(`rank ${schedule.actions.length - 1} `.length);
  const room = Math.max(10, width - label(0).length);
  const perUnit = options.until === undefined ? scaleOf(schedule, timeline, room) : room / options.until;
  const columns = Math.max(1, Math.round(timeline.makespan * perUnit));
  const lines: Span[][] = Array.from({ length: schedule.actions.length }, () => []);
  for (const span of timeline.spans) lines[span.rank].push(span);
  const { sums = [] } = timeline;
  const drawn = lines.flatMap((spans, rank) => {
    const own = sums.filter((sum) => sum.rank === rank);
    const actions = label(rank) + line(barsOf(schedule, spans), perUnit, columns, colour);
    if (sums.length === 0) return [actions];
    return [actions, "sums ".padStart(label(0).length) + line(own.map(barOfSum), perUnit, columns, colour)];
  });
  const below = [axis(columns, perUnit), ...timeline.clocks ? [clocksText(timeline.clocks)] : []];
  return `${[...drawn, ...below.map((line) => " ".repeat(label(0).length) + line)].join("\n")}\n`;
}

/** Columns a unit of time: enough for the names where they fit, else as many whole ones for the shortest as there are. */
function scaleOf(schedule: Schedule, { spans, makespan }: Timeline, room: number): number {
  if (makespan <= 0) return 1;
  const shortest = spans.reduce(
    (least, { start, end }) => end > start ? Math.min(least, end - start) : least,
    makespan,
  );
  const names = spans.reduce((most, { action }) => Math.max(most, name(schedule, action).length), 0) + 1;
  if (names / shortest * makespan <= room) return names / shortest;
  const whole = Math.floor(room / makespan * shortest) / shortest;
  return whole > 0 ? whole : room / makespan;
}

/** Kind and micro-batches, and the stage where a rank has several. */
function name(schedule: Schedule, { kind, stage, microbatches }: Action): string {
  const last = microbatches[microbatches.length - 1];
  const numbers = microbatches.length > 1 ? `${microbatches[0]}-${last}` : `${last}`;
  return `${schedule.placement.length > schedule.actions.length ? stage : ""}${kind}${numbers}`;
}

/** What is drawn over a time: the longest of its names for which there is room, or the last. */
interface Bar {
  readonly start: number;
  readonly end: number;
  readonly names: readonly string[];
  readonly ansi: string;
}

function barsOf(schedule: Schedule, spans: readonly Span[]): Bar[] {
  const first = spans.reduce((least, { action }) => Math.min(least, action.stage), Infinity);
  return spans.map(({ action, start, end }) => {
    const short = action.stage === first ? action.kind : action.kind.toLowerCase();
    const some = action.microbatches.length > 1 ? `${short}${action.microbatches[0]}+` : short;
    return { start, end, names: [name(schedule, action), some, short], ansi: ansi[action.kind] };
  });
}

const barOfSum = ({ stage, start, end }: SumSpan): Bar => ({ start, end, names: [`S${stage}`, "S"], ansi: ansiOfSums });

function line(bars: readonly Bar[], perUnit: number, columns: number, colour: boolean): string {
  let text = "";
  let at = 0;
  for (const { start, end, names, ansi } of bars) {
    const from = Math.max(at, Math.round(start * perUnit));
    const to = Math.min(columns, Math.round(end * perUnit));
    if (to <= from) continue;
    // The last column stays free, so that neighbours of one kind can be told apart.
    const space = to - from > 1 ? to - from - 1 : 1;
    const shown = (names.find((text) => text.length <= space) ?? names[names.length - 1]).padEnd(
      space,
      colour ? " " : "-",
    );
    text += " ".repeat(from - at) + (colour ? `\x1b[${ansi}m${shown}\x1b[0m` : shown) +
      " ".repeat(to - from - space);
    at = to;
  }
  return text + " ".repeat(columns - at);
}

function axis(columns: number, perUnit: number): string {
  const steps = [1, 2, 5].flatMap((digit) => [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6].map((power) => digit * 10 ** power));
  const step = steps.sort((a, b) => a - b).find((time) => time * perUnit >= 10) ?? columns / perUnit;
  let text = "";
  for (let k = 0; Math.round(k * step * perUnit) <= columns; k++) {
    const mark = `|${Number((k * step).toPrecision(6))}`;
    text = text.padEnd(Math.round(k * step * perUnit)) + mark;
  }
  return text;
}
