import { F, I, W } from "../program.ts";
import { arrivalOf, enter, exceeds, nothingRun, type Order, type Problem } from "./problem.ts";

/** How a rank chooses among the actions that are ready. */
export interface Rule {
  /** Which of F and I goes first when both are ready; a W comes last. */
  first: "F" | "I";
  /** How many micro-batches a rank may have between their F and their I. */
  ahead: (rank: number) => number;
  /** A W is put off when an F or I is known to arrive within this share of its time. */
  patience: number;
}

/** The rules worth trying: 1F1B's warm-up, that of ZB-H2, and as many forwards as fit, each with both orders. */
export function rules({ devices: n, microbatches: m }: Problem): Rule[] {
  const warmups = [(r: number) => n - r, (r: number) => 2 * (n - r) - 1, (r: number) => 2 * (n - r), () => n, () => m];
  const all: Rule[] = [];
  for (const first of ["I", "F"] as const) {
    for (const ahead of warmups) for (const patience of [0, 0.5, 1]) all.push({ first, ahead, patience });
  }
  return all;
}

/**
 * Builds an order in time: whoever can start first runs what its rule prefers.
 *
 * @returns Undefined where the rule leads into a dead end.
 */
export function listSchedule(problem: Problem, rule: Rule): Order | undefined {
  const { devices, microbatches, time, slack } = problem;
  const order: number[][] = Array.from({ length: devices }, () => []);
  const state = nothingRun(problem), { ran } = state;
  const free: number[] = new Array(devices).fill(0);

  const startOf = (rank: number, kind: number): number => {
    const [f, i, w] = ran[rank];
    if (kind === W && w >= i) return Infinity;
    if (kind === I && i >= f) return Infinity;
    if (kind === F && (f >= microbatches || f - i >= rule.ahead(rank))) return Infinity;
    if (exceeds(problem, rank, kind, ran[rank], order[rank].at(-1) ?? -1)) return Infinity;
    return Math.max(free[rank], arrivalOf(problem, state, rank, kind));
  };

  for (let left = 3 * devices * microbatches; left > 0; left--) {
    let best = { rank: -1, kind: -1, start: Infinity };
    for (let rank = 0; rank < devices; rank++) {
      const pair = rule.first === "I" ? [I, F] : [F, I];
      const starts = pair.map((kind) => startOf(rank, kind));
      const chosen = starts[1] < starts[0] - slack ? 1 : 0;
      let [kind, start] = [pair[chosen], starts[chosen]];
      const weight = startOf(rank, W);
      if (weight + rule.patience * time[rank][W] + slack < start) [kind, start] = [W, weight];
      if (start < best.start) best = { rank, kind, start };
    }
    if (best.rank < 0) return undefined;
    const { rank, kind, start } = best;
    free[rank] = start + time[rank][kind];
    enter(state, rank, kind, free[rank]);
    order[rank].push(kind);
  }
  return order.map((list) => Uint8Array.from(list));
}
