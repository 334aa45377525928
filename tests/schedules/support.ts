import type { Action, PolicyText, Schedule } from "../../lib/schedules/schedule.ts";
import { scheduleNames } from "../../lib/schedules/generators/generate.ts";
import type { Costs } from "../../lib/schedules/price/costs.ts";
import { policies } from "../../lib/schedules/transforms/policy.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

/** Every schedule of the zoo. */
export const names = scheduleNames;

/** Every policy there is, those that take a value with values out of `values`. */
export function everyPolicy(values: Readonly<Record<string, readonly number[]>>): PolicyText[] {
  return policies.flatMap(({ kind, value }) =>
    value ? values[kind].map((each) => `${kind}:${each}`) : kind
  ) as PolicyText[];
}

/** What 2BP makes of a schedule under every policy and these widths; of those that are in the same order the first. */
export function everySplit(base: Schedule, widths: readonly number[]): Schedule[] {
  const splits = new Map<string, Schedule>();
  for (const policy of everyPolicy({ every: [2], cap: [5] })) { // less than 5 the schedules of the paper cannot all keep
    for (const width of widths) {
      const split = twoStage(base, { policy, width });
      const order = JSON.stringify(split.actions);
      if (!splits.has(order)) splits.set(order, split);
    }
  }
  return [...splits.values()];
}

/** Numbers from a seed, so that a failing property test can be run again. */
export { seededRandom as random } from "../../lib/schedules/search/local_search.ts";

/** Lists of actions from the usual notation: `lists("0F0 0B0", "1F0 1B0")`. */
export function lists(...ranks: string[]): Schedule["actions"] {
  return ranks.map((rank) =>
    rank.split(" ").filter(Boolean).map((cell) => {
      const [, stage, kind, microbatches] = /^(\d+)([A-Z])(.*)$/.exec(cell)!;
      return { stage: Number(stage), kind: kind as "F", microbatches: microbatches.split("+").map(Number) };
    })
  );
}

/** A schedule of those lists, one stage a rank unless a placement is given. */
export function schedule(ranks: string[], placement: readonly number[] = ranks.map((_, rank) => rank)): Schedule {
  return { name: "test", placement, actions: lists(...ranks) };
}

/** Whether any backward is split. */
export const isSplit = ({ actions }: Schedule): boolean =>
  actions.flat().some(({ kind }) => kind === "I" || kind === "W");

/**
 * An independent, slow simulator: asks for the earliest start of every action again and again until nothing changes
 * (longest paths by relaxation), instead of walking the lists.
 */
export function slowMakespan({ actions, placement }: Schedule, costs: Costs): number {
  const stages = placement.length;
  const end = actions.map((list) => list.map(() => 0));
  /** When the output of an action leaves for another rank: after the messages of those before it in its list that go there too. */
  const leaves = (from: number, at: number, to: number): number => {
    let free = 0;
    for (let index = 0; index < at; index++) {
      const { kind, stage } = actions[from][index], target = kind === "F" ? stage + 1 : stage - 1;
      if (kind === "W" || kind === "R" || placement[target] !== to) continue;
      free = Math.max(free, end[from][index]) + (costs.line?.(from, to, kind === "F" ? "F" : "I") ?? 0);
    }
    return from === to ? end[from][at] : Math.max(free, end[from][at]);
  };
  for (let changed = true; changed;) {
    changed = false;
    actions.forEach((list, rank) =>
      list.forEach((action, index) => {
        let start = index > 0 ? end[rank][index - 1] : 0;
        actions.forEach((others, from) =>
          others.forEach((other, at) => {
            const step = action.kind === "F" ? -1 : 1;
            const makes = action.kind === "F" ? other.kind === "F" : other.kind === "I" || other.kind === "B";
            const needed = action.kind !== "W" && action.kind !== "R" && makes && other.stage === action.stage + step &&
              action.stage + step >= 0 && action.stage + step < stages &&
              other.microbatches[0] === action.microbatches[0];
            if (needed) {
              const kind = action.kind === "F" ? "F" : "I";
              start = Math.max(start, leaves(from, at, rank) + (costs.transfer?.(from, rank, kind) ?? 0));
            }
          })
        );
        const then = start + costs.duration(action, rank, index);
        if (then !== end[rank][index]) {
          end[rank][index] = then;
          changed = true;
        }
      })
    );
  }
  const last = end.map((list, rank) => {
    // Sums over replicas, one after the other as the stages of the rank end, beside what the rank itself does.
    const closed = placement.flatMap((own, stage) => {
      const closing = (action: Action) => action.stage === stage && (action.kind === "W" || action.kind === "B");
      return own === rank && costs.sum ? [{ stage, at: list[actions[rank].findLastIndex(closing)] }] : [];
    });
    const lane = closed.sort((a, b) => a.at - b.at).reduce(
      (free, { stage, at }) => Math.max(free, at) + costs.sum!(stage, rank),
      0,
    );
    return Math.max(list.at(-1) ?? 0, lane);
  });
  const summed = last.map((own, rank) => {
    const gradients = (costs.tailAfter?.(rank) ?? []).map((from) =>
      last[from] + (costs.transfer?.(from, rank, "I") ?? 0)
    );
    return Math.max(own, ...gradients);
  });
  return Math.max(...summed.map((own, rank) => {
    const others = summed.filter((_, other) => costs.tailTogether && other !== rank);
    return Math.max(own, ...others.map((each) => each + (costs.agreement ?? 0))) + (costs.tail?.(rank) ?? 0);
  }));
}

/** A schedule of F and B with some of its backwards split, drawn at random, and their W of up to so many micro-batches at random places. */
export function mixed(base: Schedule, next: () => number, width: number): Schedule {
  const actions = base.actions.map((list) => {
    const result: Action[] = [];
    const pending = new Map<number, number[]>();
    const flush = (stage: number, least: number) => {
      const waiting = pending.get(stage) ?? [];
      if (waiting.length < least) return;
      result.push({ kind: "W", stage, microbatches: waiting.splice(0, 1 + Math.floor(next() * width)) });
    };
    for (const action of list) {
      const { kind, stage, microbatches } = action;
      const isSplit = kind === "B" && next() < 0.5;
      result.push(isSplit ? { kind: "I", stage, microbatches } : action);
      if (isSplit) pending.set(stage, [...pending.get(stage) ?? [], ...microbatches]);
      for (const each of pending.keys()) if (next() < 0.3) flush(each, 1);
    }
    for (const [stage, waiting] of pending) while (waiting.length > 0) flush(stage, 1);
    return result;
  });
  return { ...base, name: `${base.name}, mixed`, actions };
}
