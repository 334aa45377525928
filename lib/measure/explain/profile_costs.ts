/** Costs for the simulator out of a profile. */
import { UserError } from "../../errors.ts";
import type { Costs } from "../../schedules/price/costs.ts";
import { type Action, formatAction, type Kind, type Schedule } from "../../schedules/schedule.ts";
import { median } from "../statistics.ts";
import type { ActionTimes, Profile, StageProfile } from "../profile/profile.ts";

/** Gives one number for what was seen: the median, or that of a resample. */
export type Pick = (times: ActionTimes) => number;

/** The times of one kind on one stage, a W's by how many micro-batches it takes. */
export function timesOfKind(stage: StageProfile | undefined, kind: Kind, width = 1): ActionTimes | undefined {
  if (!stage) return undefined;
  if (kind === "W") return stage.w?.[width];
  return kind === "F" ? stage.f : kind === "I" ? stage.i : stage.b;
}

/**
 * The stages of a profile, where it has no times of a kind those of other runs of the same stages: a plain step shows B, and one with
 * 2BP shows I and W.
 *
 * @throws {UserError} For runs of other stages or ranks.
 */
export function stagesWith(profile: Profile, others: readonly Profile[]): StageProfile[] {
  for (const other of others) {
    if (other.ranks === profile.ranks && other.stages.length === profile.stages.length) continue;
    throw new UserError(
      `Other runs add times of the same stages: this one has ${profile.stages.length} stages on ${profile.ranks} ranks, ` +
        `and the other ${other.stages.length} on ${other.ranks}`,
    );
  }
  return profile.stages.map((own) => {
    const same = others.flatMap(({ stages }) => stages.filter(({ stage }) => stage === own.stage));
    return same.reduce<StageProfile>((all, more) => ({ ...more, ...all, w: { ...more.w, ...all.w } }), own);
  });
}

/** What a schedule needs to know and no profile says: `I and W of stage 0`; undefined where nothing is missing. */
export function missingTimes(schedule: Schedule, stages: readonly StageProfile[]): string | undefined {
  const missing = new Map<number, Set<string>>();
  for (const { kind, stage, microbatches } of schedule.actions.flat()) {
    const own = stages.find((each) => each.stage === stage), width = microbatches.length;
    const known = timesOfKind(own, kind, width) ||
      kind === "B" && timesOfKind(own, "I") && timesOfKind(own, "W");
    if (known) continue;
    const names = missing.get(stage) ?? new Set();
    missing.set(stage, names.add(width > 1 ? `W of ${width} micro-batches` : kind));
  }
  if (missing.size === 0) return undefined;
  return [...missing].map(([stage, names]) => `${[...names].join(" and ")} of stage ${stage}`).join(", ");
}

/** Whether a schedule has a B on a stage of which no run had one: {@link costsOfProfile} takes its I and its W together for it. */
export function assumedB(schedule: Schedule, stages: readonly StageProfile[]): boolean {
  return schedule.actions.flat().some(({ kind, stage }) =>
    kind === "B" && !stages.find((each) => each.stage === stage)?.b
  );
}

/**
 * Costs in milliseconds out of what was seen. What the host takes before an action can work is part of it, at its beginning: the same
 * as `clusterCosts(clusterOf(profile))`, but for what is drawn or scaled, and but for messages between ranks of which nobody waited for
 * one: here they take as long as the others, there they take no time. A W of a width that nobody saw is refused here.
 *
 * @param scale By stage a factor for its times.
 */
export function costsOfProfile(
  { messages, tails, hosts }: Profile,
  stages: readonly StageProfile[],
  pick: Pick = ({ median }) => median,
  scale: readonly number[] = [],
): Costs {
  const table = new Map<string, number>();
  for (const own of stages) {
    const { stage, f, i, w = {}, b } = own, factor = scale[stage] ?? 1;
    const put = (kind: Kind, width: number, time: number) => table.set(`${kind} ${stage} ${width}`, factor * time);
    if (f) put("F", 1, pick(f));
    if (i) put("I", 1, pick(i));
    for (const [width, times] of Object.entries(w)) put("W", Number(width), pick(times));
    if (b) put("B", 1, pick(b));
    else if (i && w[1]) put("B", 1, pick(i) + pick(w[1]));
  }
  const host = hosts.map((times) => times ? pick(times) : 0);
  const flights = new Map(messages.map(({ from, to, what, time }) => [`${from} ${to} ${what}`, pick(time)]));
  // A pair of ranks that nobody saw talk takes as long as the others.
  const usualOf = (kind: "F" | "I") => {
    const same = messages.filter(({ what }) => what === kind);
    return median((same.length > 0 ? same : messages).map(({ time }) => pick(time))) || 0;
  };
  const usual = { F: usualOf("F"), I: usualOf("I") };
  const ends = tails.map((times) => times ? pick(times) : 0);
  return {
    duration(action: Action, rank: number) {
      const { kind, stage, microbatches } = action;
      const time = table.get(`${kind} ${stage} ${microbatches.length}`);
      if (time === undefined) throw new UserError(`The profile has no time for ${formatAction(action)}`);
      return time + (host[rank] ?? 0);
    },
    transfer(from, to, kind) {
      return from === to ? 0 : flights.get(`${from} ${to} ${kind}`) ?? usual[kind];
    },
    tail: (rank) => ends[rank] ?? 0,
  };
}
