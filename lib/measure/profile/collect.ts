/** What one trace file holds that a profile needs. */
import { UserError } from "../../errors.ts";
import { described } from "../../rules.ts";
import type { Action } from "../../schedules/schedule.ts";
import { Cover, Numbers } from "./intervals.ts";
import { computation, type NamedAction, parseAnnotation } from "./names.ts";

/** Something with a beginning and an end, in microseconds on the clock of its file. */
export interface Interval {
  /** When it begins. */
  readonly start: number;
  /** When it ends. */
  readonly end: number;
}

/** An annotation of the runtime. */
export interface Annotation extends Interval, NamedAction {
  /** As in the trace, `PP:0F3`. */
  readonly name: string;
  /** Thread that it was made on. */
  readonly thread: string;
}

/** A kernel on a GPU; `launch` is the number that says which call launched it. */
export interface Kernels {
  /** Launch, start and end of each. */
  readonly kernels: Numbers;
  /** Number and moment of each call. */
  readonly launches: Numbers;
}

/** What a file says. */
export interface Collected extends Kernels {
  /** Annotations of PyTorch's runtime, on the host. */
  readonly annotations: Annotation[];
  /** The same on the GPU, by its stream. */
  readonly onGpu: Annotation[];
  /** `ProfilerStep#N`. */
  readonly marks: (Interval & { readonly name: string })[];
  /** When the optimizer ran. */
  readonly updates: Interval[];
  /** Messages that gloo received: from the call until they were there. */
  readonly arrivals: (Interval & { readonly thread: string })[];
  /** By thread when it was in operations. */
  readonly covers: Map<string, Cover>;
  /** Actions of this project's traces, by rank. */
  readonly ours: Map<number, (Interval & { readonly action: Action })[]>;
  /** Elements that are no events: rows of a table, perhaps. */
  readonly rows: unknown[];
  /** How many events there were. */
  events: number;
  /** Whether a schedule class of one stage wrote "Forward 0": it names no stage and has its waits inside. */
  hasPlainForward: boolean;
}

/** More rows than a table of times has. */
const mostRows = 1_000_000;

/** More ranks than a pipeline has. */
const mostRanks = 65_536;

/** An empty collection, and what takes an event into it. */
export function collector(): { collected: Collected; take: (event: unknown) => void } {
  const collected: Collected = {
    annotations: [],
    onGpu: [],
    marks: [],
    updates: [],
    arrivals: [],
    covers: new Map(),
    ours: new Map(),
    kernels: new Numbers(),
    launches: new Numbers(),
    rows: [],
    events: 0,
    hasPlainForward: false,
  };
  return { collected, take: (event) => take(collected, event) };
}

interface Event {
  ph?: unknown;
  cat?: unknown;
  name?: unknown;
  pid?: unknown;
  tid?: unknown;
  ts?: unknown;
  dur?: unknown;
  args?: { correlation?: unknown } | null;
}

function take(into: Collected, value: unknown): void {
  const event = value as Event;
  if (typeof value !== "object" || value === null || event.ph === undefined) {
    if (into.rows.length === mostRows) throw new UserError(`more than ${mostRows} elements that are no events`);
    into.rows.push(value);
    return;
  }
  into.events++;
  if (event.ph !== "X" || typeof event.name !== "string") return;
  const { name, cat } = event;
  switch (cat) {
    case "cpu_op": {
      // What waits for a message, or sends one, is no work.
      if (name.startsWith("c10d::") || name === "record_param_comms") return;
      const thread = threadOf(event);
      let cover = into.covers.get(thread);
      if (!cover) into.covers.set(thread, cover = new Cover());
      const { start, end } = intervalOf(event);
      return cover.add(start, end);
    }
    case "user_annotation":
      return annotation(into, event, name);
    case "gpu_user_annotation": {
      const named = parseAnnotation(name);
      if (named) into.onGpu.push({ name, ...named, ...intervalOf(event), thread: threadOf(event) });
      return;
    }
    case "kernel": {
      const launch = event.args?.correlation;
      // NCCL's kernels wait for the other rank.
      if (typeof launch !== "number" || name.startsWith("nccl")) return;
      const { start, end } = intervalOf(event);
      return into.kernels.push(launch, start, end);
    }
    case "cuda_runtime":
    case "cuda_driver": {
      const launch = event.args?.correlation;
      if (typeof launch === "number" && /launch/i.test(name)) into.launches.push(launch, intervalOf(event).start);
      return;
    }
    case "F":
    case "I":
    case "W":
    case "B": {
      const action = computation(name), rank = event.tid;
      if (
        !action || action.kind !== cat || !Number.isInteger(rank) || rank as number < 0 || rank as number >= mostRanks
      ) return;
      const list = into.ours.get(rank as number) ?? [];
      into.ours.set(rank as number, list);
      list.push({ action, ...intervalOf(event) });
    }
  }
}

function annotation(into: Collected, event: Event, name: string): void {
  if (name.startsWith("PP:")) {
    const named = parseAnnotation(name);
    if (!named) throw new UserError(`an annotation ${described(name)}, which is no action of a pipeline`);
    into.annotations.push({ name, ...named, ...intervalOf(event), thread: threadOf(event) });
  } else if (name.startsWith("ProfilerStep#")) {
    into.marks.push({ name, ...intervalOf(event) });
  } else if (name.startsWith("Optimizer.step#")) {
    into.updates.push(intervalOf(event));
  } else if (name === "gloo:recv") {
    into.arrivals.push({ ...intervalOf(event), thread: threadOf(event) });
  } else if (/^(Forward|Backward) \d+$/.test(name)) {
    into.hasPlainForward = true;
  }
}

const threadOf = ({ pid, tid }: Event) => `${pid} ${tid}`;

function intervalOf({ name, ts, dur }: Event): Interval {
  if (typeof ts !== "number" || !Number.isFinite(ts)) {
    throw new UserError(`${described(name)} has a ts of ${described(ts)}, and not a number of microseconds`);
  }
  if (typeof dur !== "number" || !(dur >= 0 && dur < Infinity)) {
    throw new UserError(
      `${described(name)} has a dur of ${described(dur)}, and not a number of microseconds, 0 or more`,
    );
  }
  return { start: ts, end: ts + dur };
}
