/** The best schedule of F, I, W and B for stages placed on ranks, found by trying all of them. */

/** Costs, memory and limits of a tiny pipeline; each micro-batch is like the others. */
export interface Tiny {
  microbatches: number;
  /** Rank of each stage. */
  placement: readonly number[];
  /** By stage, whole numbers. */
  stages: readonly TinyStage[];
  /** By rank. */
  ranks: readonly {
    tail: number;
    /** Ranks whose last action, and then a gradient, the tail waits for. */
    after: readonly number[];
    /** Of an activation to any other rank, and of a gradient. */
    down: number;
    up: number;
  }[];
  /** Whether no tail starts before all ranks have got what they wait for. */
  together: boolean;
  cap: number;
}

/** A stage of it. */
export interface TinyStage {
  F: number;
  I: number;
  W: number;
  B: number;
  /** Time of its gradients over replicas, after its last W or B. */
  sum: number;
  activations: number;
  /** What an F keeps in their place where its backward is whole. */
  whole?: number;
  released: number;
  derivatives: number;
  workspace: { F: number; I: number; W: number; B: number };
  messages: { F: number; I: number };
  /** Of activations and derivatives, what the same rank holds from when it makes the input, if it does. */
  input: { F: number; I: number };
  parameters: number;
  losses: number;
  /** Held for the sum, from the last W or B on. */
  held: number;
}

type Kind = "F" | "I" | "W" | "B";
/** What a rank does, the k-th time with that stage. */
export interface Step {
  kind: Kind;
  stage: number;
}

const stagesOn = ({ placement }: Tiny, rank: number) =>
  [...placement.keys()].filter((stage) => placement[stage] === rank);

/** The lists of a rank in which the k-th I or B of a stage follows its k-th F, and its k-th W its k-th I, that keep the cap. */
export function lists(tiny: Tiny, rank: number): Step[][] {
  const { microbatches } = tiny, all: Step[][] = [], stages = stagesOn(tiny, rank);
  /** By stage so many F, backwards, and W that wait. */
  const ran = tiny.placement.map(() => ({ f: 0, i: 0, waiting: 0 }));
  const list: Step[] = [];
  const extend = () => {
    if (stages.every((s) => ran[s].i === microbatches && ran[s].waiting === 0)) {
      if (peakOf(tiny, rank, list) <= tiny.cap) all.push([...list]);
      return;
    }
    for (const stage of stages) {
      const before = { ...ran[stage] }, { f, i, waiting } = before;
      const turn = (kind: Kind, after: Partial<typeof before>) => {
        list.push({ kind, stage });
        ran[stage] = { ...before, ...after };
        extend();
        ran[stage] = before;
        list.pop();
      };
      if (f < microbatches) turn("F", { f: f + 1 });
      if (i < f) turn("I", { i: i + 1, waiting: waiting + 1 });
      if (i < f) turn("B", { i: i + 1 });
      if (waiting > 0) turn("W", { waiting: waiting - 1 });
    }
  };
  extend();
  return all;
}

/** The most that a rank holds, from a table of what is there. */
export function peakOf(tiny: Tiny, rank: number, list: readonly Step[]): number {
  const { placement, stages, microbatches } = tiny, own = stagesOn(tiny, rank);
  const standing = own.reduce((sum, s) => sum + stages[s].parameters + stages[s].losses * microbatches, 0);
  const there = new Map<string, number>();
  const total = () => [...there.values()].reduce((sum, amount) => sum + amount, 0);
  const backwards = (s: number) => list.filter(({ kind, stage }) => stage === s && (kind === "I" || kind === "B"));
  const split = stages.map((_, s) => backwards(s).flatMap(({ kind }, at) => kind === "I" ? [at] : []));
  const next = stages.map(() => ({ F: 0, I: 0, W: 0, over: 0 }));
  let peak = standing, underway = 0;
  for (const { kind, stage: s } of list) {
    const stage = stages[s], { activations, whole = activations } = stage;
    const at = next[s][kind === "B" ? "I" : kind]++, k = kind === "W" ? split[s][at] : at;
    const passes = kind === "F" ? "F" : "I", taker = kind === "W" ? undefined : kind === "F" ? s + 1 : s - 1;
    let sent = 0;
    if (kind !== "W") there.delete(`input ${passes} ${s} ${k}`);
    if (kind === "F") there.set(`F ${s} ${k}`, backwards(s)[k].kind === "B" ? whole : activations);
    if (kind === "I") there.set(`I ${s} ${k}`, stage.derivatives);
    if (taker !== undefined && placement[taker] === rank) {
      there.set(`input ${passes} ${taker} ${k}`, stages[taker].input[passes]);
    } else if (taker !== undefined && taker >= 0 && taker < stages.length) sent = stage.messages[passes];
    peak = Math.max(peak, standing + total() + stage.workspace[kind] + sent + underway);
    underway = sent;
    if (kind === "I") there.set(`F ${s} ${k}`, activations - stage.released);
    if (kind === "F" || kind === "I") continue;
    there.delete(`F ${s} ${k}`);
    there.delete(`I ${s} ${k}`);
    if (++next[s].over === microbatches) there.set(`sum ${s}`, stage.held);
  }
  return peak;
}

/** When the last rank is done, or Infinity where ranks wait for each other. */
export function timeOf({ placement, stages, ranks, together }: Tiny, all: readonly (readonly Step[])[]): number {
  const free = ranks.map(() => 0), at = ranks.map(() => 0);
  /** By stage when its k-th activation and gradient are made, and its last W or B has run. */
  const made = stages.map(() => ({ F: [] as number[], I: [] as number[], over: 0 }));
  for (let moved = true; moved;) {
    moved = false;
    for (const [rank, list] of all.entries()) {
      for (; at[rank] < list.length; at[rank]++) {
        const { kind, stage } = list[at[rank]], passes = kind === "F" ? "F" : "I";
        const other = kind === "F" ? stage - 1 : kind === "W" ? -1 : stage + 1;
        let arrival = 0;
        if (other >= 0 && other < stages.length) {
          const end = made[other][passes][made[stage][passes].length];
          if (end === undefined) break;
          const from = placement[other];
          arrival = end + (from === rank ? 0 : kind === "F" ? ranks[from].down : ranks[from].up);
        }
        free[rank] = Math.max(free[rank], arrival) + stages[stage][kind];
        if (kind !== "W") made[stage][passes].push(free[rank]);
        if (kind === "W" || kind === "B") made[stage].over = free[rank];
        moved = true;
      }
    }
  }
  if (all.some((list, rank) => at[rank] < list.length)) return Infinity;
  const own = ranks.map((_, rank) => {
    const over = placement.flatMap((on, s) => on === rank ? [{ at: made[s].over, takes: stages[s].sum }] : []);
    over.sort((a, b) => a.at - b.at);
    return Math.max(free[rank], over.reduce((end, { at, takes }) => Math.max(end, at) + takes, 0));
  });
  const summed = ranks.map(({ after }, rank) =>
    // A gradient to any rank takes what one to the rank before takes.
    Math.max(own[rank], ...after.map((other) => own[other] + ranks[other].up))
  );
  return Math.max(...ranks.map(({ tail }, rank) => tail + (together ? Math.max(...summed) : summed[rank])));
}

/** The least time of all orders within the cap; Infinity where there is none. */
export function leastTime(tiny: Tiny): number {
  const choices = tiny.ranks.map((_, rank) => lists(tiny, rank));
  let least = Infinity;
  const choose = (chosen: Step[][]) => {
    if (chosen.length < choices.length) { for (const list of choices[chosen.length]) choose([...chosen, list]); }
    else least = Math.min(least, timeOf(tiny, chosen));
  };
  choose([]);
  return least;
}
