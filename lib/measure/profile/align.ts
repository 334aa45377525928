/** Steps on one clock, with what each action waited for. */
import type { Action, Schedule } from "../../schedules/schedule.ts";
import { type Clocks, clocksOf, type Exchange } from "./clocks.ts";
import type { MatchedSteps } from "./pipeline.ts";
import type { TracedAction, TracedMessage, TracedStep } from "./profile.ts";
import type { RankAction, RankTrace } from "./rank_trace.ts";

/** What came of it. */
export interface Aligned {
  /** The steps, in milliseconds from their starts on the clock of rank 0. */
  readonly steps: readonly TracedStep[];
  /** By step and rank when the rank was done, where the trace shows it; in milliseconds from its last action. */
  readonly tails: readonly (readonly (number | undefined)[])[];
  /** By step and rank the actions whose times are a share of those of two. */
  readonly shared: ReadonlySet<TracedAction>;
  /** In milliseconds. */
  readonly clocks: Clocks;
}

/** Which action of which rank makes what an action needs from another rank. */
export function makersOf(
  { placement, actions }: Schedule,
): (action: Action) => { rank: number; key: string } | undefined {
  const back = new Map<string, string>();
  actions.flat().forEach(({ kind, stage, microbatches }) => {
    if (kind === "I" || kind === "B") back.set(`${stage} ${microbatches[0]}`, kind);
  });
  return ({ kind, stage, microbatches: [microbatch] }) => {
    if (kind === "W") return undefined;
    const from = kind === "F" ? stage - 1 : stage + 1;
    if (from < 0 || from >= placement.length || placement[from] === placement[stage]) return undefined;
    const made = kind === "F" ? "F" : back.get(`${from} ${microbatch}`);
    return { rank: placement[from], key: `${made}${from} ${microbatch}` };
  };
}

const keyOf = ({ kind, stage, microbatches }: Action) => `${kind}${stage} ${microbatches[0]}`;

/** Puts the steps of all ranks on the clock of rank 0. */
export function alignedSteps(ranks: readonly RankTrace[], steps: MatchedSteps["steps"], schedule: Schedule): Aligned {
  const maker = makersOf(schedule);
  const exchanges: Exchange[] = [];
  const found = steps.map(({ ranks: own }) => {
    const all = own.map(({ actions }) => new Map(actions.map((each) => [keyOf(each.action), each])));
    own.forEach(({ actions }, to) => {
      for (const action of actions) {
        const from = maker(action.action);
        // Actions that ran together began at a moment that nobody knows.
        if (!from || action.isShare) continue;
        const sent = all[from.rank].get(from.key)!;
        if (!sent.isShare) {
          exchanges.push({ from: from.rank, to, sent: sent.end, arrived: ranks[to].latestArrival(action) });
        }
      }
    });
    return all;
  });
  const clocks = clocksOf(ranks, exchanges);
  /** What to subtract from a time of a rank, in microseconds, to have it on the clock of rank 0. */
  const ahead = ranks.map(({ base }, rank) => clocks[rank].ahead - (base - ranks[0].base) / 1000);
  const shared = new Set<TracedAction>();
  const tails: (number | undefined)[][] = [];
  const traced = steps.map(({ name, ranks: own }, at): TracedStep => {
    const zero = Math.min(...own.map(({ actions }, rank) => actions[0].start - ahead[rank]));
    const messages: TracedMessage[] = [];
    const lists = own.map(({ actions }, rank) => {
      const toStep = (time: number) => (time - ahead[rank] - zero) / 1000;
      return actions.map((each: RankAction): TracedAction => {
        const from = maker(each.action);
        const source = from && found[at][from.rank].get(from.key);
        const sent = from && source!.end - ahead[from.rank] + ahead[rank];
        const began = ranks[rank].began(each, sent);
        const made = { action: each.action, start: toStep(each.start), began: toStep(began), end: toStep(each.end) };
        if (each.isShare) shared.add(made);
        if (from) {
          messages.push({
            from: from.rank,
            to: rank,
            what: each.action.kind === "F" ? "F" : "I",
            stage: source!.action.stage,
            microbatch: each.action.microbatches[0],
            sent: toStep(sent!),
            used: made.began,
          });
        }
        return made;
      });
    });
    tails.push(own.map(({ actions, end }) => end === undefined ? undefined : (end - actions.at(-1)!.end) / 1000));
    const length = Math.max(
      ...own.map(({ actions, end }, rank) =>
        (Math.max(end ?? 0, ...actions.map((each) => each.end)) - ahead[rank] - zero) / 1000
      ),
    );
    return { name, length, ranks: lists, messages };
  });
  const inMilliseconds = clocks.map(({ ahead, error }) => ({ ahead: ahead / 1000, error: error / 1000 }));
  return { steps: traced, tails, shared, clocks: inMilliseconds };
}
