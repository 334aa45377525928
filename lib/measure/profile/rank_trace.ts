/** What a trace says of one rank: its actions in order, step by step, and what tells when they were at work. */
import { UserError } from "../../errors.ts";
import { formatAction } from "../../schedules/schedule.ts";
import type { Action } from "../../schedules/schedule.ts";
import { median, quantile } from "../statistics.ts";
import type { Annotation, Collected, Interval } from "./collect.ts";
import { onGpu } from "./gpu.ts";
import { isPreparation } from "./names.ts";

/** An action as its rank's trace has it, in microseconds on the clock of its file. */
export interface RankAction extends Interval {
  /** What ran. */
  readonly action: Action;
  /** When it was at work: from `start` on where that is known, as on a GPU. */
  readonly isExact: boolean;
  /** It ran together with another one, and its times are a share of theirs. */
  readonly isShare: boolean;
  /** When its message was there, where the trace has that. */
  readonly arrival?: number;
  /** Thread that it was called on. */
  readonly thread: string;
}

/** A step of one rank. */
export interface RankStep {
  /** `ProfilerStep#3`, and behind a dot which of several within that; undefined without marks. */
  readonly mark?: string;
  /** In the order they ran. */
  readonly actions: readonly RankAction[];
  /** When the rank was done, update included, where the trace shows more than the actions. */
  readonly end?: number;
}

/** A rank's trace. */
export interface RankTrace {
  /** File that it was in. */
  readonly file: string;
  /** Global rank that the file names. */
  readonly rank?: number;
  /** How many ranks ran, as the file has it. */
  readonly world?: number;
  /** Machine that the file names. */
  readonly host?: string;
  /** What `ts` counts from, in nanoseconds. */
  readonly base: number;
  /** The steps, in order. */
  readonly steps: readonly RankStep[];
  /** Largest stage that it sends an activation of. */
  readonly sendsFrom?: number;
  /** When it began to work, of an action whose message was sent at that moment, or earlier than all where it has none. */
  began(action: RankAction, sent?: number): number;
  /** The same as far as the rank's own trace says when a message can have come at the latest. */
  latestArrival(action: RankAction): number;
  /** What a reader should know. */
  readonly notes: readonly string[];
}

/** Where the file of a rank comes from. */
export interface Origin {
  /** Its name in messages. */
  readonly file: string;
  /** What it says besides events. */
  readonly header: Readonly<Record<string, unknown>>;
}

/**
 * The rank that a file of PyTorch's profiler is of.
 *
 * @throws {UserError} For a file of several processes.
 */
export function torchRank({ file, header }: Origin, collected: Collected): RankTrace {
  const { covers, updates, marks, arrivals } = collected;
  const annotations = onceEach(collected.annotations).sort((a, b) => a.start - b.start || a.end - b.end);
  const processes = new Set(annotations.map(({ thread }) => thread.split(" ")[0]));
  if (processes.size > 1) {
    throw new UserError(`${file} has the actions of ${processes.size} processes; give a file a rank`);
  }
  const notes: string[] = [];
  const gpu = onGpu(annotations, collected);
  if (gpu.note) notes.push(`${file}: ${gpu.note}`);
  const distributed = header.distributedInfo as { rank?: unknown; world_size?: unknown } | null | undefined;
  const waits = arrivals.toSorted((a, b) => a.start - b.start);

  /** Of each action, in the order of the annotations. */
  const actionsOf = new Map<Annotation, RankAction[]>();
  const shares = sharesOf(annotations);
  for (const [at, annotation] of annotations.entries()) {
    const { actions, thread } = annotation;
    const times = gpu.times?.get(annotation) ?? annotation;
    const made: RankAction[] = [];
    let { start } = times;
    actions.forEach((action, index) => {
      const isLast = index === actions.length - 1;
      const end = isLast ? times.end : start + (times.end - times.start) * shares(actions);
      const arrival = gpu.times ? undefined : arrivalOf(action, annotations, at, waits);
      made.push({ action, start, end, thread, arrival, isExact: Boolean(gpu.times), isShare: actions.length > 1 });
      start = end;
    });
    actionsOf.set(annotation, made);
  }
  /** What a host does between the call of an action and its first operation, where nothing is waited for. */
  let overhead = 0;
  const began = (action: RankAction, sent = -Infinity): number => {
    const { start, end, thread, arrival, isExact } = action;
    const from = Math.max(start, Math.min(end, sent));
    if (isExact) return start;
    const first = covers.get(thread)?.first(from, end);
    if (first !== undefined) return first;
    return Math.min(end, Math.max(from, Math.min(end, arrival ?? -Infinity)) + overhead);
  };
  if (!gpu.times) overhead = overheadOf([...actionsOf.values()].flat(), covers);

  const sends = annotations.filter(({ what }) => what === "SEND_F").map(({ stage }) => stage);
  return {
    file,
    rank: Number.isInteger(distributed?.rank) ? distributed!.rank as number : undefined,
    world: Number.isInteger(distributed?.world_size) ? distributed!.world_size as number : undefined,
    host: typeof header.host_name === "string" ? header.host_name : undefined,
    base: typeof header.baseTimeNanoseconds === "number" ? header.baseTimeNanoseconds : 0,
    steps: stepsOf(annotations, actionsOf, marks, gpu.times ? [] : updates),
    sendsFrom: sends.length > 0 ? Math.max(...sends) : undefined,
    began,
    latestArrival(action) {
      if (action.isExact) return action.start;
      const first = covers.get(action.thread)?.first(action.start, action.end);
      return Math.min(action.arrival ?? Infinity, first ?? action.end);
    },
    notes,
  };
}

/** Without repetitions: a profiler may write the same annotation twice. */
function onceEach(annotations: readonly Annotation[]): Annotation[] {
  return [...new Map(annotations.map((each) => [`${each.name} ${each.start} ${each.end}`, each])).values()];
}

/** The ranks of a trace that this project wrote: one step, work alone. */
export function ourRanks({ file }: Origin, { ours }: Collected): RankTrace[] {
  const ranks = Math.max(...ours.keys()) + 1;
  return Array.from({ length: ranks }, (_, rank): RankTrace => {
    const list = (ours.get(rank) ?? []).toSorted((a, b) => a.start - b.start || a.end - b.end);
    const actions = list.map((each) => ({ ...each, isExact: true, isShare: false, thread: "" }));
    if (list.length === 0) throw new UserError(`${file} has actions of rank ${ranks - 1}, and none of rank ${rank}`);
    const seen = new Set<string>();
    for (const { action } of actions) {
      const name = formatAction(action);
      if (seen.has(name)) throw new UserError(`${file} has ${name} twice; this project writes one step a trace`);
      seen.add(name);
    }
    return {
      file,
      rank,
      host: "",
      base: 0,
      steps: [{ actions }],
      began: ({ start }) => start,
      latestArrival: ({ start }) => start,
      notes: [],
    };
  });
}

/**
 * What the host does between the call of an action and its first operation, in microseconds: the median of those that wait for nothing,
 * W and the forwards of the first stage, of the kind where it is less. 0 where the trace has no operations.
 */
function overheadOf(actions: readonly RankAction[], covers: Collected["covers"]): number {
  const medians = (["W", "F"] as const).flatMap((wanted) => {
    const times = actions.flatMap(({ action: { kind, stage }, thread, start, end }) => {
      if (kind !== wanted || kind === "F" && stage > 0) return [];
      const first = covers.get(thread)?.first(start, end);
      return first === undefined ? [] : [first - start];
    });
    return times.length > 0 ? [median(times)] : [];
  });
  return medians.length > 0 ? Math.min(...medians) : 0;
}

/** When gloo had the message of an action: what its RECV, on the same thread, began. */
function arrivalOf(
  { kind, stage, microbatches }: Action,
  annotations: readonly Annotation[],
  at: number,
  waits: Collected["arrivals"],
): number | undefined {
  if (kind === "W" || waits.length === 0) return undefined;
  const name = `PP:${stage}RECV_${kind === "F" ? "F" : "B"}${microbatches[0]}`;
  for (let index = at - 1; index >= 0; index--) {
    const each = annotations[index];
    if (each.name === annotations[at].name) return undefined;
    if (each.name !== name) continue;
    const inside = waits.filter(({ start, thread }) =>
      thread === each.thread && start >= each.start && start <= each.end
    );
    return inside.length > 0 ? Math.max(...inside.map(({ end }) => end)) : undefined;
  }
}

/** By actions that run together the share of the first of them: as long as they take by themselves, or a third. */
function sharesOf(annotations: readonly Annotation[]): (actions: readonly Action[]) => number {
  const alone = (wanted: Action) => {
    const times = annotations.filter(({ actions: [action, other] }) =>
      action && !other && action.kind === wanted.kind && action.stage === wanted.stage
    ).map(({ start, end }) => end - start);
    return quantile(times, 0.25); // the durations have waits in them, and those with the least are shortest
  };
  const known = new Map<string, number>();
  return (actions) => {
    const key = actions.map(({ kind, stage }) => `${kind}${stage}`).join();
    let share = known.get(key);
    if (share === undefined) {
      const [first, second] = actions.map(alone);
      share = first + second > 0 ? first / (first + second) : 1 / 3;
      known.set(key, share);
    }
    return share;
  };
}

/** Cuts a rank's annotations into steps: at a mark, and where an action comes again. */
function stepsOf(
  annotations: readonly Annotation[],
  actionsOf: ReadonlyMap<Annotation, readonly RankAction[]>,
  marks: Collected["marks"],
  updates: readonly Interval[],
): RankStep[] {
  const ordered = marks.toSorted((a, b) => a.start - b.start);
  const markAt = (time: number) => ordered.findLast(({ start, end }) => start <= time && time < end)?.name;
  const steps: { mark?: string; actions: RankAction[]; hostEnd: number; end?: number; isGpu: boolean }[] = [];
  let seen = new Set<string>(), mark: string | undefined, within = 1;
  for (const annotation of annotations) {
    const made = actionsOf.get(annotation)!;
    const current = steps.at(-1);
    if (made.length === 0) {
      if (current && !isPreparation(annotation.what) && markAt(annotation.start) === mark) {
        current.end = Math.max(current.end ?? -Infinity, annotation.end);
      }
      continue;
    }
    const here = markAt(annotation.start), names = made.map(({ action }) => formatAction(action));
    if (!current || here !== mark || names.some((name) => seen.has(name))) {
      within = here === mark && current ? within + 1 : 1;
      mark = here;
      seen = new Set();
      const name = mark === undefined ? undefined : within === 1 ? mark : `${mark}.${within}`;
      steps.push({ mark: name, actions: [], hostEnd: 0, isGpu: made[0].isExact });
    }
    const step = steps.at(-1)!;
    for (const name of names) seen.add(name);
    step.actions.push(...made);
    step.hostEnd = annotation.end;
    step.end = undefined; // what came before an action is no end
  }
  return steps.map(({ mark, actions, hostEnd, end, isGpu }, index): RankStep => {
    if (isGpu) return { mark, actions: actions.toSorted((a, b) => a.start - b.start) };
    const next = steps[index + 1]?.actions[0].start ?? Infinity;
    const update = updates.filter(({ start }) => start >= hostEnd && start < next).map((each) => each.end);
    const last = Math.max(end ?? -Infinity, ...update);
    return { mark, actions, end: last > -Infinity ? last : undefined };
  });
}
