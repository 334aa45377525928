/** What must end before what, in every order that keeps the cap: what lower bounds are worked out from. */
import { B, F, I, W } from "../program.ts";
import type { Problem } from "./problem.ts";

/** Above so many numbers it is not worked out what all must come before an action: only along single chains. */
const mostCounted = 1e7;

/**
 * The k-th F, gradient and rest of a backward of each stage, as *parts*: that of stage s and kind F, I or W is
 * `(3 * s + kind) * microbatches + k`. Each is as short as any way to run it makes it, be it whole or split.
 */
export interface Precedence {
  /** Least time of each part, by `3 * stage + kind`. */
  readonly length: Float64Array;
  /** Parts, in an order in which they can run. */
  readonly order: Int32Array;
  /** What each part waits for: `first[part]` to `first[part + 1] - 1`. */
  readonly first: Int32Array;
  /** Of each such wait the part that has to end before, and how long after that the waiting one can start at the soonest. */
  readonly from: Int32Array;
  readonly lag: Float64Array;
  /** The least time from the end of a part to the end of the step, by what comes at the end of the step alone. */
  readonly last: Float64Array;
  /** By rank its parts. */
  readonly on: readonly Int32Array[];
  /** Whether one part must end before another of the same rank starts. */
  isBefore(part: number, other: number): boolean;
}

/** Works out the parts of a problem, with what a cap makes them wait for. */
export function precedenceOf(problem: Problem, last: readonly number[]): Precedence {
  const { stages, microbatches: m, placement, sequence, source, delay, gradient, backward, time, on } = problem;
  const part = (stage: number, kind: number, k: number) => (3 * stage + kind) * m + k;
  const size = 3 * stages * m;
  const length = new Float64Array(3 * stages);
  for (let s = 0; s < stages; s++) {
    length[3 * s + F] = time[s][F];
    length[3 * s + I] = gradient[s];
    length[3 * s + W] = backward[s] - gradient[s];
  }
  const caps = capWaits(problem);
  const order = new Int32Array(size), waits: [number, number][][] = Array.from({ length: size }, () => []);
  let filled = 0;
  for (let k = 0; k < m; k++) {
    const add = (stage: number, kind: number) => {
      const own = part(stage, kind, k), list = waits[own];
      order[filled++] = own;
      if (k > 0) list.push([part(stage, kind, k - 1), 0]);
      for (const { kind: before, earlier } of caps[stage][kind]) {
        const needed = k - earlier(k);
        if (needed >= 0 && needed < k) list.push([part(stage, before, needed), 0]);
      }
      return list;
    };
    for (const port of sequence) {
      const stage = port >> 1, kind = port & 1, list = add(stage, kind), before = source[port];
      if (before >= 0) list.push([part(before >> 1, before & 1, k), delay[port]]);
      if (kind !== I) continue;
      list.push([part(stage, F, k), 0]);
      add(stage, W).push([part(stage, I, k), 0]);
    }
  }
  const first = new Int32Array(size + 1);
  for (let x = 0; x < size; x++) first[x + 1] = first[x] + waits[x].length;
  const from = Int32Array.from(waits.flatMap((list) => list.map(([before]) => before)));
  const lag = Float64Array.from(waits.flatMap((list) => list.map(([, lag]) => lag)));
  const known = { length, order, first, from, lag };
  return {
    ...known,
    last: Float64Array.from({ length: size }, (_, x) => last[placement[Math.floor(x / m / 3)]] + sumAfter(problem, x)),
    on: on.map((list) =>
      Int32Array.from(list.flatMap((s) => Array.from({ length: 3 * m }, (_, at) => 3 * s * m + at)))
    ),
    isBefore: beforeOf(problem, known),
  };
}

/** What is left of the sum of a stage after its last W. */
function sumAfter({ sums, microbatches: m }: Problem, part: number): number {
  const chain = Math.floor(part / m);
  return chain % 3 === W && part % m === m - 1 ? sums[(chain - W) / 3] : 0;
}

/** A wait that a cap brings: for the part of that kind of so many micro-batches before. */
interface CapWait {
  readonly kind: number;
  earlier(k: number): number;
}

/** What a cap has the k-th F, I and W of each stage wait for on the same stage. */
function capWaits(problem: Problem): CapWait[][][] {
  const { on, placement, own, give, workspace, room, joins, cap } = problem;
  /** Of a micro-batch that is between its F and the end of its W. */
  const least = own.map(({ activations, derivatives }, s) =>
    Math.min(activations, activations - give[s][I] + derivatives)
  );
  const atMost = (room: number, each: number) => each > 0 ? Math.max(1, Math.floor(room / each + 1e-9)) : Infinity;
  return placement.map((rank, s) => {
    const most = cap[rank], list = on[rank];
    if (most === Infinity || list.some((other) => least[other] < 0)) return [[], [], []];
    const { activations: a, derivatives: d } = own[s], during = a + workspace[s][F];
    // So many are between F and W at most; so many between F and I, or the next backward has no room; and as those of a rank's stages
    // before have no W earlier than its own I, so many of them besides.
    const inFlight = atMost(most - during + least[s], least[s]);
    const untilBackward = room[rank] > -Infinity ? atMost(most - room[rank], a) : Infinity;
    const before = list.filter((other) => other <= s).reduce((sum, other) => sum + least[other], 0);
    const together = atMost(most - during + least[s], before);
    const backwardRoom = joins[s] ? Math.min(d + workspace[s][I], workspace[s][B]) : d + workspace[s][I];
    const rest = give[s][W];
    return [
      [
        { kind: W, earlier: () => inFlight },
        { kind: I, earlier: () => Math.min(untilBackward, together) },
      ],
      [{
        kind: W,
        // Without so many W there is no room for the k-th backward.
        earlier: (k) => {
          const tooMuch = (k + 1) * a + k * (d - give[s][I]) + backwardRoom - most;
          return rest > 0 ? Math.max(1, k + 1 - Math.max(0, Math.ceil(tooMuch / rest - 1e-9))) : Infinity;
        },
      }],
      [],
    ];
  });
}
/** Says which parts of a rank must end before which others, along all waits. */
function beforeOf(
  { stages, microbatches: m }: Problem,
  { order, first, from }: Pick<Precedence, "order" | "first" | "from">,
): Precedence["isBefore"] {
  const chains = 3 * stages, size = chains * m;
  if (size * chains > mostCounted) {
    // Those of the same stage and kind, at least.
    return (part, other) => part < other && Math.floor(part / m) === Math.floor(other / m);
  }
  /** Of each part how many of each chain must end before it. */
  const counts = new Int32Array(size * chains);
  for (const x of order) {
    const own = x * chains;
    for (let at = first[x]; at < first[x + 1]; at++) {
      const y = from[at], theirs = y * chains;
      for (let c = 0; c < chains; c++) if (counts[theirs + c] > counts[own + c]) counts[own + c] = counts[theirs + c];
      const c = Math.floor(y / m), k = y % m + 1;
      if (counts[own + c] < k) counts[own + c] = k;
    }
  }
  return (part, other) => counts[other * chains + Math.floor(part / m)] > part % m;
}
