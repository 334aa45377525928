/** Steps on one clock, with what each action waited for. */
import { UserError } from "../../errors.ts";
import type { Action, Schedule } from "../../schedules/schedule.ts";
import { median } from "../statistics.ts";
import { type Clocks, clocksOf, type Exchange } from "./clocks.ts";
import { shown } from "../../text.ts";
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

/**
 * Puts the steps of all ranks on the clock of rank 0.
 *
 * @throws {UserError} For traces that cannot be of one run.
 */
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
  expectOneTime(ranks, steps);
  const clocks = clocksOf(ranks, exchanges);
  expectOneRun(ranks, exchanges, steps, clocks);
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

/** Ranks of one machine share a clock, which may be some milliseconds off by what the profiler does, but never by whole runs. */
function expectOneTime(ranks: readonly RankTrace[], steps: MatchedSteps["steps"]): void {
  if (steps.length === 0) return;
  const spans = ranks.map(({ base }, rank) => ({
    start: steps[0].ranks[rank].actions[0].start + base / 1000,
    end: steps.at(-1)!.ranks[rank].actions.at(-1)!.end + base / 1000,
  }));
  ranks.forEach(({ host, file }, rank) => {
    const other = ranks.findIndex((each) => host !== undefined && each.host === host);
    if (other < 0 || other === rank) return;
    const apart = Math.max(spans[rank].start - spans[other].end, spans[other].start - spans[rank].end);
    if (apart <= 0) return;
    throw new UserError(
      `${ranks[other].file} and ${file} are of one machine (${shown(host!)}), and ${
        (apart / 1e6).toFixed(3)
      } s lie between their steps: ` +
        "they are of different runs; give the traces of one run",
    );
  });
}

/** Of one run, messages leave some difference of the clocks possible. What contradicts itself by half a step is no drift of a clock. */
function expectOneRun(
  ranks: readonly RankTrace[],
  exchanges: readonly Exchange[],
  steps: MatchedSteps["steps"],
  clocks: Clocks,
): void {
  const lengths = steps.map(({ ranks: own }) =>
    Math.max(...own.map(({ actions }) => actions.at(-1)!.end - actions[0].start))
  );
  const late = exchanges.map(({ from, to, sent, arrived }) =>
    sent - clocks[from].ahead + (ranks[from].base - ranks[to].base) / 1000 - (arrived - clocks[to].ahead)
  );
  const at = late.reduce((most, time, index) => time > late[most] ? index : most, 0);
  if (!(late[at] > median(lengths) / 4)) return;
  const { from, to } = exchanges[at];
  throw new UserError(
    `${ranks[from].file} and ${
      ranks[to].file
    } contradict each other: whatever the difference of their clocks, a message is used ` +
      `${(late[at] / 1000).toFixed(1)} ms before it is made; give the traces of one run`,
  );
}
