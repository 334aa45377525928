/** Why an action starts when it does: read from the edges of its Program, and from the times at their ends. */
import { kindNames } from "../report/style.ts";
import { ACTIVATION, inputOf } from "../schedules/program.ts";
import { formatAction } from "../schedules/schedule.ts";
import type { Bar, Part } from "./outcome.ts";

/** A reason. */
export interface Why {
  /** The action, and when it runs. */
  readonly what: string;
  /** Why it starts then, in a sentence or two. */
  readonly because: string;
  /** The action that it waited for, on its own rank or another; absent where it waited for none. */
  readonly cause?: { readonly rank: number; readonly index: number };
}

/** A time as people read it. */
export const time = (value: number): string => String(Number(value.toPrecision(6)));

/** Says why an action starts when it does, or why it never starts. */
export function whyOf(part: Part, bar: Bar): Why {
  const { known, bars } = part, { rank, index, action, start, end } = bar;
  const [letter, name] = kindNames[action.kind].split(": ");
  const what = `Rank ${rank}, action ${index}: ${formatAction(action)}, ${name} (${letter}) of micro-batch${
    action.microbatches.length > 1 ? "es" : ""
  } ${action.microbatches.join(", ")} on stage ${action.stage}`;
  if (!known) return { what, because: "Nothing runs: this schedule is refused before it starts." };
  const { program, times, next } = known, node = program.first[rank] + index;
  const placeOf = (other: number) => ({ rank: program.rank[other], index: other - program.first[program.rank[other]] });
  const nameOf = (other: number) => {
    const at = placeOf(other);
    return formatAction(bars[at.rank][at.index].action);
  };
  const input = inputOf(program, node), source = input < 0 ? -1 : program.from[input];
  const thing = input < 0 ? "" : program.what[input] === ACTIVATION ? "activation" : "gradient";
  const from = source < 0
    ? ""
    : `of stage ${program.stage[source]}, which rank ${program.rank[source]} makes with ${nameOf(source)}`;
  if (bar.state === "stuck") {
    const at = placeOf(source);
    return {
      what,
      because: `Never starts: it waits for the ${thing} ${from}, and rank ${at.rank} hangs ${
        next[at.rank] === source ? "there" : `at ${nameOf(next[at.rank])} before that`
      }.`,
      cause: at,
    };
  }
  if (bar.state === "never") {
    const first = next[rank];
    return { what, because: `Never starts: its rank hangs at ${nameOf(first)} before it.`, cause: placeOf(first) };
  }
  const runs = `${what}, from ${time(start)} to ${time(end)}`;
  const before = index > 0 ? times.ends[node - 1] : 0, idle = start - before;
  const because = times.because[node];
  if (because < 0) return { what: runs, because: "Starts at once: it is the first of its rank and waits for nothing." };
  const ended = times.ends[because];
  if (program.rank[because] === rank && because === node - 1) {
    const there = source < 0 || program.rank[source] === rank
      ? ""
      : ` Its ${thing} came at ${time(arrivalOf(part, source, rank, thing))}.`;
    return {
      what: runs,
      because: `Starts when its rank is free: ${nameOf(because)} before it ends at ${time(ended)}.${there}`,
      cause: placeOf(because),
    };
  }
  const underway = start - ended;
  const way = underway > 1e-9 * Math.max(start, 1) ? `, and ${time(underway)} on its way` : "";
  return {
    what: runs,
    because: `Rank ${rank} is idle for ${time(idle)}, from ${
      time(before)
    }: it waits for the ${thing} ${from}, over at ${time(ended)}${way}.`,
    cause: placeOf(because),
  };
}

/** When what a node made had come to a rank. */
function arrivalOf({ known, costs }: Part, source: number, rank: number, thing: string): number {
  const { program, times } = known!;
  const delay = costs.transfer?.(program.rank[source], rank, thing === "activation" ? "F" : "I") ?? 0;
  return times.ends[source] + delay;
}
