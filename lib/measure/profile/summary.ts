/** What the steps of a run come to. */
import { UserError } from "../../errors.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { median } from "../statistics.ts";
import type { Aligned } from "./align.ts";
import type { ActionTimes, Profile, StageProfile, TracedAction, TracedStep } from "./profile.ts";
import type { RankTrace } from "./rank_trace.ts";
import { actionTimes } from "./times.ts";

/** A first step that takes so many times the median of those after it is a warm-up. */
const slow = 1.5;

/** The profile of steps on one clock. */
export function profileOf(
  source: "torch" | "twobp",
  traces: readonly RankTrace[],
  schedule: Schedule,
  { steps: all, tails, shared, clocks }: Aligned,
  incomplete: Profile["dropped"],
  warmup: number | undefined,
): Profile {
  const { count, dropped } = warmedUp(all, warmup);
  const steps = all.slice(count);
  const hosts = traces.map((_, rank) => actionTimes(steps.flatMap((step) => gapsOf(step, rank))));
  const notes = traces.flatMap((trace) => trace.notes);
  const stages = schedule.placement.map((rank, stage) => stageOf(steps, rank, stage, shared));
  if (shared.size > 0) {
    notes.push(
      "Actions that ran overlapped are given shares of their common time, and stand among the costs only where nothing else does.",
    );
  }
  const unsure = clocks.findIndex(({ error }) => error === Infinity);
  if (unsure >= 0) notes.push(`Nothing says how far the clock of rank ${unsure} is from rank 0's.`);
  return {
    source,
    ranks: traces.length,
    schedule,
    steps,
    stages,
    messages: messagesOf(steps, hosts),
    hosts,
    tails: traces.map((_, rank) => actionTimes(tails.slice(count).flatMap((each) => each[rank] ?? []))),
    clocks,
    dropped: [...incomplete, ...dropped],
    notes,
  };
}

/** How many steps at the beginning are left out, and why. */
function warmedUp(
  steps: readonly TracedStep[],
  warmup: number | undefined,
): { count: number; dropped: Profile["dropped"] } {
  if (warmup !== undefined) {
    if (warmup >= steps.length) {
      throw new UserError(`A warm-up of ${warmup} steps leaves none: there are ${steps.length} whole steps`);
    }
    return {
      count: warmup,
      dropped: steps.slice(0, warmup).map(({ name }) => ({ name, why: "a warm-up, as asked for" })),
    };
  }
  const dropped: { name: string; why: string }[] = [];
  while (dropped.length + 1 < steps.length) {
    const { name, length } = steps[dropped.length];
    const usual = median(steps.slice(dropped.length + 1).map((each) => each.length));
    if (!(length > slow * usual)) break;
    const times = (length / usual).toFixed(1);
    dropped.push({ name, why: `a warm-up: ${length.toFixed(1)} ms, ${times} times the median of the steps after it` });
  }
  return { count: dropped.length, dropped };
}

function stageOf(
  steps: readonly TracedStep[],
  rank: number,
  stage: number,
  shared: ReadonlySet<TracedAction>,
): StageProfile {
  const actions = steps.flatMap(({ ranks }) => ranks[rank]).filter(({ action }) => action.stage === stage);
  const times = (isIt: (each: TracedAction) => boolean) => {
    const those = actions.filter(isIt), alone = those.filter((each) => !shared.has(each));
    return actionTimes((alone.length > 0 ? alone : those).map(({ began, end }) => end - began));
  };
  const widths = new Set(
    actions.flatMap(({ action: { kind, microbatches } }) => kind === "W" ? microbatches.length : []),
  );
  const [f, i, b] = (["F", "I", "B"] as const).map((kind) => times(({ action }) => action.kind === kind));
  const w: Record<number, ActionTimes> = {};
  for (const width of [...widths].sort((a, b) => a - b)) {
    w[width] = times(({ action: { kind, microbatches } }) => kind === "W" && microbatches.length === width)!;
  }
  return { stage, ...(f && { f }), ...(i && { i }), ...(widths.size > 0 && { w }), ...(b && { b }) };
}

/** What a rank takes between two actions of which the second waits for nothing that was not there long before. */
function gapsOf({ ranks, messages }: TracedStep, rank: number): number[] {
  const sent = new Map(messages.filter(({ to }) => to === rank).map((each) => [each.used, each.sent]));
  return ranks[rank].flatMap((action, at) => {
    const before = ranks[rank][at - 1];
    if (!before || (sent.get(action.began) ?? -Infinity) > before.began) return [];
    return [Math.max(0, action.began - before.end)];
  });
}

/** What messages take of which a rank was idle when they were sent. */
function messagesOf(steps: readonly TracedStep[], hosts: Profile["hosts"]): Profile["messages"] {
  const seen = new Map<string, { from: number; to: number; what: "F" | "I"; samples: number[] }>();
  for (const { ranks, messages } of steps) {
    for (const { from, to, what, sent, used } of messages) {
      const before = ranks[to].findLast((each) => each.end <= used && each.began < used);
      if (before && before.end > sent) continue;
      const key = `${from} ${to} ${what}`;
      const entry = seen.get(key) ?? { from, to, what, samples: [] };
      seen.set(key, entry);
      entry.samples.push(Math.max(0, used - sent - (hosts[to]?.median ?? 0)));
    }
  }
  return [...seen.values()].sort((a, b) => a.from - b.from || a.to - b.to || (a.what < b.what ? -1 : 1))
    .map(({ from, to, what, samples }) => ({ from, to, what, time: actionTimes(samples)! }));
}
