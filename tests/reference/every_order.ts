/** The best schedule of F, I, W and B with one stage a rank, found by trying all of them. */

/** Costs, memory and limits of a tiny pipeline; each micro-batch is like the others. */
export interface Tiny {
  microbatches: number;
  /** By rank, whole numbers. */
  ranks: readonly {
    F: number;
    I: number;
    W: number;
    B: number;
    /** Of an activation to the next rank, and of a gradient to the one before. */
    down: number;
    up: number;
    tail: number;
    /** Of its gradients over replicas, after its last action. */
    sum: number;
    /** Ranks whose last action, and then a gradient, the tail waits for. */
    after: readonly number[];
    activations: number;
    /** What an F keeps in their place where its backward is whole. */
    whole?: number;
    released: number;
    derivatives: number;
    workspace: { F: number; I: number; W: number; B: number };
    messages: { F: number; I: number };
    parameters: number;
    losses: number;
  }[];
  /** Whether no tail starts before all ranks have got what they wait for. */
  together: boolean;
  cap: number;
}

type Kind = "F" | "I" | "W" | "B";

/** The sequences in which the k-th I or B of so many follows the k-th F, and the k-th W the k-th I. */
export function sequences(count: number): Kind[][] {
  const all: Kind[][] = [];
  /** So many F, backwards, and W that wait. */
  const extend = (list: Kind[], f: number, i: number, waiting: number) => {
    if (i === count && waiting === 0) return void all.push(list);
    if (f < count) extend([...list, "F"], f + 1, i, waiting);
    if (i < f) extend([...list, "I"], f, i + 1, waiting + 1);
    if (i < f) extend([...list, "B"], f, i + 1, waiting);
    if (waiting > 0) extend([...list, "W"], f, i, waiting - 1);
  };
  extend([], 0, 0, 0);
  return all;
}

/** The most that a rank holds, from a list of what is there. */
export function peakOf({ ranks, microbatches }: Tiny, rank: number, list: readonly Kind[]): number {
  const { activations, whole = activations, released, derivatives, workspace, messages, parameters, losses } =
    ranks[rank];
  const held = { F: [] as number[], I: [] as number[] };
  const backwards = list.filter((kind) => kind === "I" || kind === "B");
  const split = backwards.flatMap((kind, at) => kind === "I" ? [at] : []);
  const next = { F: 0, I: 0, W: 0 };
  const total = (amounts: number[]) => amounts.reduce((sum, amount) => sum + (amount ?? 0), 0);
  const standing = parameters + losses * microbatches;
  let peak = standing, underway = 0;
  for (const kind of list) {
    const at = next[kind === "B" ? "I" : kind]++, k = kind === "W" ? split[at] : at;
    if (kind === "F") held.F[k] = backwards[k] === "B" ? whole : activations;
    if (kind === "I") held.I[k] = derivatives;
    const sent = kind === "F" && rank < ranks.length - 1
      ? messages.F
      : (kind === "I" || kind === "B") && rank > 0
      ? messages.I
      : 0;
    peak = Math.max(peak, standing + total(held.F) + total(held.I) + workspace[kind] + sent + underway);
    underway = sent;
    if (kind === "I") held.F[k] -= released;
    if (kind === "W" || kind === "B") held.F[k] = held.I[k] = 0;
  }
  return peak;
}

/** When the last rank is done, or Infinity where ranks wait for each other. */
export function timeOf({ ranks, together }: Tiny, lists: readonly (readonly Kind[])[]): number {
  /** By rank: when it is free, when its k-th activation and gradient are made, and how far it is. */
  const state = lists.map(() => ({ free: 0, F: [] as number[], I: [] as number[], W: [] as number[], at: 0 }));
  for (let moved = true; moved;) {
    moved = false;
    for (const [rank, list] of lists.entries()) {
      const own = state[rank], kind = list[own.at];
      if (!kind) continue;
      const from = kind === "F" ? state[rank - 1] : kind === "W" ? undefined : state[rank + 1];
      const passes = kind === "B" ? "I" : kind, made = from?.[passes][own[passes].length];
      if (from && made === undefined) continue;
      const link = kind === "F" ? ranks[rank - 1]?.down : ranks[rank + 1]?.up;
      own.free = Math.max(own.free, from ? made! + link! : 0) + ranks[rank][kind];
      own[passes].push(own.free);
      own.at++;
      moved = true;
    }
  }
  if (state.some(({ at }, rank) => at < lists[rank].length)) return Infinity;
  const own = state.map(({ free }, rank) => free + ranks[rank].sum);
  const summed = ranks.map(({ after }, rank) =>
    // A gradient to any rank takes what one to the rank before takes.
    Math.max(own[rank], ...after.map((other) => own[other] + ranks[other].up))
  );
  return Math.max(...ranks.map(({ tail }, rank) => tail + (together ? Math.max(...summed) : summed[rank])));
}

/** The least time of all orders within the cap; Infinity where there is none. */
export function leastTime(tiny: Tiny): number {
  const all = sequences(tiny.microbatches);
  const choices = tiny.ranks.map((_, rank) => all.filter((list) => peakOf(tiny, rank, list) <= tiny.cap));
  let least = Infinity;
  const choose = (chosen: Kind[][]) => {
    if (chosen.length < choices.length) choices[chosen.length].forEach((list) => choose([...chosen, list]));
    else least = Math.min(least, timeOf(tiny, chosen));
  };
  choose([]);
  return least;
}
