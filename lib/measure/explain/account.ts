/** Where a traced step goes: every moment of every rank is one thing, so that the sums add up to the step. */
import { inputOf, lower, type Program } from "../../schedules/program.ts";
import type { Action, Kind, Schedule } from "../../schedules/schedule.ts";
import type { Span } from "../../schedules/price/simulate.ts";
import { checkSpans } from "../../schedules/check/spans.ts";
import type { Profile, TracedStep } from "../profile/profile.ts";

/**
 * What a rank does for a while: it computes (`compute`), waits for an action of another rank that has not ended (`wait`), waits
 * for a message of one that has (`message`), does nothing although it could (`host`: the host is late), ends its step
 * (`tail`: gradients, update), or is done before the others (`idle`).
 */
export type SegmentKind = "compute" | "wait" | "message" | "host" | "tail" | "idle";

/** A while of a rank, in milliseconds from the start of the step. */
export interface Segment {
  /** What it is. */
  readonly kind: SegmentKind;
  /** Where. */
  readonly rank: number;
  /** When it begins. */
  readonly start: number;
  /** When it ends. */
  readonly end: number;
  /** What computes, or what could not begin; absent for what follows the last action. */
  readonly action?: Action;
  /** Of a wait or a message: the action of another rank that it was for. */
  readonly source?: { readonly rank: number; readonly action: Action; readonly end: number };
}

/** What a rank really waited for: computation, a message or a late host, perhaps of a rank further away. */
export interface Cause {
  /** What went on there meanwhile. */
  readonly kind: "compute" | "message" | "host";
  /** Where: of a message, the rank that it came to. */
  readonly rank: number;
  /** The action that computed, or that could not begin. */
  readonly action: Action;
  /** For how long, in milliseconds. */
  readonly time: number;
}

/** A wait of an action for one of another rank that had not ended. */
export interface ExplainedWait {
  /** What waited. */
  readonly action: Action;
  /** What it waited for. */
  readonly for: Action;
  /** The rank of that. */
  readonly of: number;
  /** For how long, in milliseconds. */
  readonly time: number;
  /** Why that was late, along the chain of waits to whoever worked, or should have: the times add up to `time`. */
  readonly causes: readonly Cause[];
}

/** Where the step of a rank goes, in milliseconds: all of it adds up to the length of the step. */
export interface RankAccount {
  /** By kind of action. */
  readonly compute: Readonly<Record<Kind, number>>;
  /** Waits for actions of other ranks, in order. */
  readonly waits: readonly ExplainedWait[];
  /** Their sum. */
  readonly waiting: number;
  /** Waits for messages whose makers had ended. */
  readonly messages: number;
  /** Nothing was missing, and nothing ran. */
  readonly host: number;
  /** From the last action to the rank's end: sums of gradients, update. */
  readonly tail: number;
  /** Done, and the others not. */
  readonly idle: number;
}

/** Where a traced step goes. */
export interface StepAccount {
  /** As the trace has it. */
  readonly name: string;
  /** In milliseconds. */
  readonly length: number;
  /** By rank. */
  readonly ranks: readonly RankAccount[];
  /** By rank what it did from 0 to `length`, without gaps. */
  readonly segments: readonly (readonly Segment[])[];
  /** The chain that sets the length, first to last, from 0 to `length` without gaps: shorten one, and the step shortens. */
  readonly criticalPath: readonly Segment[];
}

/** The accounts of all steps of a profile. */
export function accountsOf(profile: Profile, schedule: Schedule): StepAccount[] {
  const program = lower(schedule);
  return profile.steps.map((step, at) => {
    checkSpans(program, spansOfStep(step));
    const segments = segmentsOf(program, profile, step, at);
    const search = new Segments(segments);
    const ranks = segments.map((list) => accountOf(list, search));
    return { name: step.name, length: step.length, ranks, segments, criticalPath: criticalPath(search, step.length) };
  });
}

/** The actions of a traced step, from when they began to work. */
export function spansOfStep({ ranks }: TracedStep): Span[] {
  return ranks.flatMap((list, rank) =>
    list.map(({ action, began, end }, index) => ({ rank, index, action, start: began, end }))
  );
}

function segmentsOf(program: Program, { messages, hosts, tails }: Profile, step: TracedStep, at: number): Segment[][] {
  const { length } = step, { first, rank: rankOf } = program;
  // Ends of a rank in order: passes of a GPU can overlap a little.
  const ends = step.ranks.map((list) => {
    let latest = 0;
    return list.map(({ end }) => latest = Math.min(length, Math.max(latest, end)));
  });
  const flights = new Map(messages.map(({ from, to, what, time }) => [`${from} ${to} ${what}`, time.median]));
  return step.ranks.map((list, rank) => {
    const segments: Segment[] = [];
    let now = 0;
    const until = (end: number, rest: Omit<Segment, "rank" | "start" | "end">) => {
      if (end <= now) return;
      segments.push({ ...rest, rank, start: now, end });
      now = end;
    };
    list.forEach(({ action, began }, index) => {
      const begins = Math.min(began, ends[rank][index]);
      const edge = inputOf(program, first[rank] + index), node = edge < 0 ? -1 : program.from[edge];
      const other = node < 0 ? rank : rankOf[node];
      if (other !== rank) {
        const made = node - first[other], end = ends[other][made];
        const source = { rank: other, action: step.ranks[other][made].action, end };
        const isWaitedFor = end >= now;
        until(Math.min(end, begins), { kind: "wait", action, source });
        // Where the rank was free when the message left, it came when the host could begin with what follows; where the rank was busy,
        // the message was there before, or is taken to have needed as long as others.
        const flight = flights.get(`${other} ${rank} ${source.action.kind === "F" ? "F" : "I"}`) ?? 0;
        const arrival = isWaitedFor ? begins - (hosts[rank]?.median ?? 0) : Math.min(begins, end + flight);
        until(arrival, { kind: "message", action, source });
      }
      until(begins, { kind: "host", action });
      until(ends[rank][index], { kind: "compute", action });
    });
    const tail = tails[rank],
      time = tail && (tail.samples.length === 0 ? tail.median : tail.samples[at] ?? tail.median);
    until(Math.min(length, now + (time ?? 0)), { kind: "tail" });
    until(length, { kind: "idle" });
    return segments;
  });
}

/** Segments by rank and moment. */
class Segments {
  constructor(readonly lists: readonly (readonly Segment[])[]) {}

  /** Index of the segment of a rank that holds a moment, or ends with it. */
  at(rank: number, moment: number): number {
    const list = this.lists[rank];
    let low = 0, high = list.length - 1;
    while (low < high) {
      const middle = low + high >> 1;
      if (list[middle].end < moment) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * What a rank that others wait for did from `start` to `end`: where it waited itself, what those did that it waited for. It ends,
   * as ranks that wait for each other in a circle are none that a schedule allows.
   */
  causes(rank: number, start: number, end: number, into: Cause[]): void {
    const list = this.lists[rank];
    for (let at = this.at(rank, start); at < list.length && list[at].start < end; at++) {
      const segment = list[at], from = Math.max(start, segment.start), to = Math.min(end, segment.end);
      if (to <= from) continue;
      const { kind, action, source } = segment;
      if (kind === "wait") this.causes(source!.rank, from, to, into);
      else if (action && kind !== "tail" && kind !== "idle") into.push({ kind, rank, action, time: to - from });
    }
  }
}

function accountOf(list: readonly Segment[], all: Segments): RankAccount {
  const compute = { F: 0, I: 0, W: 0, B: 0, R: 0 }, waits: ExplainedWait[] = [];
  const sums = { wait: 0, message: 0, host: 0, tail: 0, idle: 0 };
  for (const { kind, action, source, start, end } of list) {
    if (kind === "compute") {
      compute[action!.kind] += end - start;
      continue;
    }
    sums[kind] += end - start;
    if (kind !== "wait") continue;
    const causes: Cause[] = [];
    all.causes(source!.rank, start, end, causes);
    waits.push({ action: action!, for: source!.action, of: source!.rank, time: end - start, causes });
  }
  const { wait, message, host, tail, idle } = sums;
  return { compute, waits, waiting: wait, messages: message, host, tail, idle };
}

/** From the end back: what a rank was doing, and where it waited, what the one did that it waited for. */
function criticalPath(all: Segments, length: number): Segment[] {
  const path: Segment[] = [];
  const idle = (list: readonly Segment[]) => list.at(-1)?.kind === "idle" ? list.at(-1)!.end - list.at(-1)!.start : 0;
  let rank = all.lists.reduce((best, list, at) => idle(list) < idle(all.lists[best]) ? at : best, 0), now = length;
  while (now > 0) {
    const segment = all.lists[rank][all.at(rank, now)];
    if (segment.kind === "wait") {
      rank = segment.source!.rank;
      continue;
    }
    // A message is under way from the end of who made it, even while the rank still did something else.
    const isMessage = segment.kind === "message" && segment.source!.end < now;
    const start = isMessage ? segment.source!.end : segment.start;
    path.push({ ...segment, start, end: now });
    if (isMessage) rank = segment.source!.rank;
    now = start;
  }
  return path.reverse();
}
