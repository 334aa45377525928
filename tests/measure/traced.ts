/** Profiles as a reader of traces makes them, of steps simulated with noise. */
import type { ActionTimes, Profile, StageProfile, TracedStep } from "../../lib/measure/profile/profile.ts";
import { median, quartiles } from "../../lib/measure/statistics.ts";
import { generator } from "../../lib/random.ts";
import type { Costs } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import type { Kind, Schedule } from "../../lib/schedules/schedule.ts";
import { isMessage, lower } from "../../lib/schedules/program.ts";

/** What was seen, as a profile says it. */
export function timesOf(samples: readonly number[]): ActionTimes {
  return { median: median(samples), quartiles: quartiles(samples), samples, outliers: [] };
}

/** How a run is made up. */
export interface Run {
  /** Time of F, I, W and B by stage. */
  readonly stages: readonly Readonly<Record<Exclude<Kind, "R">, number>>[];
  /** Time of every message. */
  readonly comm?: number;
  /** Time of the host before each action, once its message is there. */
  readonly host?: number;
  /** Time of each rank's end. */
  readonly tail?: number;
  /** Share by which times vary, up and down. */
  readonly noise?: number;
  /** Number of steps. */
  readonly steps?: number;
  /** Whether an action stands in the trace from its call on, as in PyTorch's, or from when it began to work. */
  readonly stands?: boolean;
}

/** The profile of a schedule that ran so. */
export function tracedRun(schedule: Schedule, run: Run): Profile {
  const { stages, comm = 0, host = 0, tail = 0, noise = 0, steps = 6, stands = false } = run;
  const random = generator("traced"), program = lower(schedule);
  const seen = new Map<string, number[]>();
  const traced: TracedStep[] = Array.from({ length: steps }, (_, step) => {
    const drawn = schedule.actions.map((list) =>
      list.map(({ kind, stage, microbatches }) =>
        stages[stage][kind as "F"] * microbatches.length * (1 + noise * (2 * random.uniform() - 1))
      )
    );
    const costs: Costs = {
      duration: (_, rank, index) => host + drawn[rank][index],
      transfer: (from, to) => from === to ? 0 : comm,
      tail: () => tail,
    };
    const { spans, makespan } = simulate(schedule, costs);
    const ranks = schedule.actions.map((list, rank) =>
      list.map((action, index) => {
        const { start, end } = spans.find((span) => span.rank === rank && span.index === index)!, began = start + host;
        const before = index > 0 ? spans.find((span) => span.rank === rank && span.index === index - 1)!.end : 0;
        const key = `${action.kind} ${action.stage} ${action.microbatches.length}`;
        seen.set(key, [...seen.get(key) ?? [], drawn[rank][index]]);
        return { action, start: stands ? before : began, began, end };
      })
    );
    return { name: `ProfilerStep#${step}`, length: makespan, ranks, messages: [] };
  });
  const count = schedule.placement.length;
  const own: StageProfile[] = Array.from({ length: count }, (_, stage) => {
    const of = (kind: Kind, width = 1) => {
      const samples = seen.get(`${kind} ${stage} ${width}`);
      return samples && timesOf(samples);
    };
    const [f, i, w, b] = [of("F"), of("I"), of("W"), of("B")];
    return { stage, ...f && { f }, ...i && { i }, ...w && { w: { 1: w } }, ...b && { b } };
  });
  const pairs = new Map<string, { from: number; to: number; what: "F" | "I"; time: ActionTimes }>();
  program.from.forEach((source, edge) => {
    if (!isMessage(program, edge)) return;
    const from = program.rank[source], to = program.rank[program.to[edge]], what = program.what[edge] === 1 ? "F" : "I";
    pairs.set(`${from} ${to} ${what}`, { from, to, what, time: timesOf([comm]) });
  });
  return {
    source: "torch",
    ranks: schedule.actions.length,
    schedule,
    steps: traced,
    stages: own,
    messages: [...pairs.values()],
    hosts: schedule.actions.map(() => timesOf([host])),
    tails: schedule.actions.map(() => timesOf(new Array(steps).fill(tail))),
    clocks: schedule.actions.map(() => ({ ahead: 0, error: 0 })),
    dropped: [],
    notes: [],
  };
}
