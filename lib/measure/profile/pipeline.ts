/** Which ranks make the pipeline, what each ran, and which of their steps belong together. */
import { UserError } from "../../errors.ts";
import { quoted } from "../../text.ts";
import { type Action, formatAction } from "../../schedules/schedule.ts";
import { median } from "../statistics.ts";
import type { RankStep, RankTrace } from "./rank_trace.ts";

/** The steps that every rank has whole. */
export interface MatchedSteps {
  /** By rank what it runs in each step. */
  readonly order: readonly (readonly Action[])[];
  /** The steps, each with its name and what each rank has of it. */
  readonly steps: readonly { readonly name: string; readonly ranks: readonly RankStep[] }[];
  /** What is left out, and why. */
  readonly dropped: readonly { readonly name: string; readonly why: string }[];
}

/**
 * The traces in the order of their ranks in the pipeline.
 *
 * @throws {UserError} For two traces of a rank, two of a stage, and ranks that are missing.
 */
export function inOrder(traces: readonly RankTrace[]): RankTrace[] {
  const known = new Map<number, string>();
  for (const { rank, file } of traces) {
    if (rank === undefined) continue;
    const other = known.get(rank);
    if (other !== undefined) {
      throw new UserError(`${other} and ${file} are both of rank ${rank}; give one trace of each`);
    }
    known.set(rank, file);
  }
  const owners = new Map<number, string>();
  for (const trace of traces) {
    for (const stage of stagesOf(trace)) {
      const other = owners.get(stage);
      if (other !== undefined && other !== trace.file) {
        throw new UserError(
          `Stage ${stage} runs in ${other} and in ${trace.file}; give the traces of one pipeline, a stage in one of them`,
        );
      }
      owners.set(stage, trace.file);
    }
  }
  const last = Math.max(...owners.keys());
  const sent = Math.max(...traces.map(({ sendsFrom = -1 }) => sendsFrom));
  for (let stage = 0; stage <= Math.max(last, sent + 1); stage++) {
    if (!owners.has(stage)) {
      throw new UserError(`No trace has actions of stage ${stage}; give the traces of all ranks, one file each`);
    }
  }
  // Replicas and tensor parallelism make a job larger, but by a whole factor.
  const large = traces.find(({ world = traces.length }) => world % traces.length > 0);
  if (large) {
    const some = traces.length === 1 ? "this is 1 trace" : `these are ${traces.length} traces`;
    throw new UserError(
      `${large.file} says that ${large.world} ranks ran, and ${some}; give the traces of all ranks of a pipeline`,
    );
  }
  const lowest = (trace: RankTrace) => Math.min(...stagesOf(trace));
  const named = traces.every(({ rank }) => rank !== undefined);
  return traces.toSorted((a, b) => named ? a.rank! - b.rank! : lowest(a) - lowest(b));
}

function stagesOf({ steps }: RankTrace): Set<number> {
  return new Set(steps.flatMap(({ actions }) => actions.map(({ action: { stage } }) => stage)));
}

const signatureOf = ({ actions }: RankStep) => actions.map(({ action }) => formatAction(action)).join();

/**
 * Puts together the steps of all ranks: those of the same mark; without marks those at the same place among the whole ones.
 *
 * @throws {UserError} Where that cannot be told.
 */
export function matched(traces: readonly RankTrace[]): MatchedSteps {
  const dropped: { name: string; why: string }[] = [];
  const usual = traces.map(({ steps }) => usualOrder(steps));
  const isMarked = traces.every(({ steps }) => steps.some(({ mark }) => mark !== undefined));
  /** By rank its whole steps, by their marks or their places. */
  const whole = traces.map(({ steps }, rank) => {
    const found = new Map<string, RankStep>();
    steps.forEach((step, at) => {
      const name = isMarked ? step.mark : `step ${at}`;
      if (name === undefined) {
        dropped.push({ name: `Rank ${rank}, step ${at}`, why: "it is outside of every ProfilerStep" });
      } else if (signatureOf(step) !== usual[rank]) {
        const most = usual[rank].split(",").length;
        const why = step.actions.length < most
          ? `it has ${step.actions.length} of ${most} actions`
          : "its actions are in another order than in most steps";
        dropped.push({ name: `Rank ${rank}, ${name}`, why });
      } else {
        found.set(name, step);
      }
    });
    return found;
  });
  const steps = isMarked ? byMark(whole, dropped) : byPlace(traces, whole.map((each) => [...each.values()]), dropped);
  if (steps.length === 0) throw new UserError("No step is whole on every rank; give traces of the same steps");
  const order = steps[0].ranks.map(({ actions }) => actions.map(({ action }) => action));
  return { order, steps, dropped };
}

/** What most steps of a rank run; of two that are as frequent, the longer one. */
function usualOrder(steps: readonly RankStep[]): string {
  const counts = new Map<string, number>();
  for (const step of steps) counts.set(signatureOf(step), (counts.get(signatureOf(step)) ?? 0) + 1);
  const actions = (signature: string) => signature.split(",").length;
  const [first] = [...counts].sort(([a, m], [b, n]) => n - m || actions(b) - actions(a));
  return first[0];
}

function byMark(
  whole: readonly ReadonlyMap<string, RankStep>[],
  dropped: { name: string; why: string }[],
): { name: string; ranks: RankStep[] }[] {
  const names = [...new Set(whole.flatMap((each) => [...each.keys()]))];
  const steps = names.flatMap((name) => {
    const missing = whole.findIndex((each) => !each.has(name));
    if (missing < 0) return [{ name, ranks: whole.map((each) => each.get(name)!) }];
    if (!dropped.some((each) => each.name === `Rank ${missing}, ${name}`)) {
      dropped.push({ name, why: `the trace of rank ${missing} does not have it` });
    }
    return [];
  });
  return steps.sort((a, b) => a.ranks[0].actions[0].start - b.ranks[0].actions[0].start);
}

/** Without marks: as many everywhere, or those that overlap in time on one clock. */
function byPlace(
  traces: readonly RankTrace[],
  lists: readonly RankStep[][],
  dropped: { name: string; why: string }[],
): { name: string; ranks: RankStep[] }[] {
  const count = Math.min(...lists.map((list) => list.length)), most = Math.max(...lists.map((list) => list.length));
  let shifts = lists.map(() => 0);
  if (count < most) {
    if (new Set(traces.map(({ host }) => host)).size > 1 || traces[0].host === undefined) {
      const counts = lists.map((list) => list.length).join(" and ");
      throw new UserError(
        `The ranks have ${counts} whole steps, and neither marks nor a common clock say which belong together; ` +
          "call prof.step() after each, or trace the same steps on every rank",
      );
    }
    const startOf = (rank: number, at: number) =>
      (traces[rank].base - traces[0].base) / 1000 + lists[rank][at].actions[0].start;
    const shortest = lists.findIndex((list) => list.length === count);
    shifts = lists.map((list, rank) => {
      const distances = Array.from(
        { length: list.length - count + 1 },
        (_, shift) =>
          median(Array.from({ length: count }, (_, at) => Math.abs(startOf(rank, shift + at) - startOf(shortest, at)))),
      );
      return distances.indexOf(Math.min(...distances));
    });
    dropped.push({ name: `${most - count} of ${most} steps`, why: "not every rank's trace has them" });
  }
  return Array.from({ length: count }, (_, at) => ({
    name: `step ${at}`,
    ranks: lists.map((list, rank) => list[at + shifts[rank]]),
  }));
}

/** Where files differ in who wrote them, and so in what their times mean, they cannot be one run. */
export function oneSource(sources: readonly { readonly file: string; readonly source: string }[]): void {
  const [first, ...others] = sources;
  const other = others.find(({ source }) => source !== first.source);
  if (!other) return;
  throw new UserError(`${quoted(first.file)} and ${quoted(other.file)} were not written by the same program`);
}
