import { F, I, W } from "../program.ts";
import { exceeds, isNext } from "./amounts.ts";
import { codeOf, type Order, type Problem } from "./problem.ts";
import { arrivalOf, enter, nothingRun } from "./state.ts";

/** How a rank chooses among the actions that are ready. */
export interface Rule {
  /** Which of F and I goes first when both are ready; a W comes last. */
  first: "F" | "I";
  /** How many micro-batches a rank may have between their F and their I, on all its stages. */
  ahead: (rank: number) => number;
  /** A W is put off when an F or I is known to arrive within this share of its time. */
  patience: number;
  /** Whether of a rank's stages the one whose micro-batches are furthest goes first. */
  deep: boolean;
}

/** The rules worth trying: 1F1B's warm-up, that of ZB-H2, and as many forwards as fit, each with both orders. */
export function rules({ devices: n, microbatches: m, stages, on }: Problem): Rule[] {
  const warmups = [(r: number) => n - r, (r: number) => 2 * (n - r) - 1, (r: number) => 2 * (n - r), () => n, () => m];
  // With several stages a rank also those of interleaved and of waves.
  const further = [(r: number) => 2 * (n - r) - 1, () => n, () => 2 * n].map((own) => (r: number) =>
    own(r) + (on[r].length - 1) * n
  );
  const aheads = stages > n ? [...further, ...warmups.map((own) => (r: number) => own(r) * on[r].length)] : warmups;
  const all: Rule[] = [];
  for (const first of ["I", "F"] as const) {
    for (const ahead of aheads) {
      for (const patience of [0, 0.5, 1]) {
        for (const deep of stages > n ? [true, false] : [true]) all.push({ first, ahead, patience, deep });
      }
    }
  }
  return all;
}

/**
 * Builds an order in time: whoever can start first runs what its rule prefers.
 *
 * @returns Undefined where the rule leads into a dead end.
 */
export function listSchedule(problem: Problem, rule: Rule): Order | undefined {
  const { devices, stages, microbatches, time, on, slack } = problem;
  const order: number[][] = Array.from({ length: devices }, () => []);
  const state = nothingRun(problem), { ran } = state;
  const free: number[] = new Array(devices).fill(0);
  const last: number[] = new Array(devices).fill(-1);
  const waiting: number[] = new Array(devices).fill(0);
  /** By rank what else than W it may run, the most preferred first. */
  const preferred = on.map((list) => {
    const forwards = (rule.deep ? [...list].reverse() : list).map((s) => codeOf(s, F));
    const backwards = (rule.deep ? list : [...list].reverse()).map((s) => codeOf(s, I));
    return rule.first === "I" ? [...backwards, ...forwards] : [...forwards, ...backwards];
  });
  const weights = on.map((list) => [...list].reverse().map((s) => codeOf(s, W)));

  const startOf = (rank: number, code: number): number => {
    const kind = code & 3;
    if (!isNext(problem, code, ran)) return Infinity;
    if (kind === F && (waiting[rank] >= rule.ahead(rank) && waiting[rank] > 0)) return Infinity;
    if (exceeds(problem, code, ran, last[rank]) || (kind === F && blocks(problem, code, ran))) return Infinity;
    return Math.max(free[rank], arrivalOf(problem, state, code));
  };
  /** What each rank would run next, worked out again only where something has changed. */
  const next = on.map(() => ({ code: -1, start: Infinity }));
  const decide = (rank: number) => {
    let code = -1, start = Infinity;
    for (const each of preferred[rank]) {
      const at = startOf(rank, each);
      if (at < start - slack) [code, start] = [each, at];
    }
    for (const each of weights[rank]) {
      const at = startOf(rank, each);
      if (at + rule.patience * time[each >> 2][W] + slack < start) [code, start] = [each, at];
    }
    next[rank] = { code, start };
  };
  for (let rank = 0; rank < devices; rank++) decide(rank);
  for (let left = 3 * stages * microbatches; left > 0; left--) {
    let rank = -1, earliest = Infinity;
    for (let r = 0; r < devices; r++) if (next[r].start < earliest) [rank, earliest] = [r, next[r].start];
    if (rank < 0) return undefined;
    const { code, start } = next[rank], stage = code >> 2, kind = code & 3;
    free[rank] = start + time[stage][kind];
    enter(problem, state, code, free[rank]);
    order[rank].push(code);
    last[rank] = code;
    waiting[rank] += kind === F ? 1 : kind === I ? -1 : 0;
    decide(rank);
    const sink = kind === W ? -1 : problem.sink[2 * stage + kind];
    if (sink >= 0) decide(problem.placement[sink >> 1]);
  }
  return order.map((list) => Int32Array.from(list));
}

/**
 * Whether after an F the rank could not take the oldest of its micro-batches through the stages that are still before it: with one stage
 * a rank there are none.
 */
function blocks(problem: Problem, code: number, ran: Int32Array): boolean {
  const { placement, on, take, give, room, cap } = problem, stage = code >> 2, rank = placement[stage], list = on[rank];
  if (list.length === 1 || cap[rank] === Infinity) return false;
  const oldest = ran[3 * list[0] + 1];
  let stays = take[stage][F];
  for (const s of list) {
    const f = ran[3 * s], i = ran[3 * s + 1], isOwn = s === stage && f === oldest;
    stays += f * take[s][F] + i * (take[s][I] - give[s][I] - give[s][W]);
    if (f <= oldest && !isOwn) stays += take[s][F];
  }
  return stays + room[rank] > cap[rank];
}
