import { B, F, I, W } from "../program.ts";
import {
  arrivalOf,
  count,
  enter,
  exceeds,
  linksOf,
  makespanOf,
  nothingRun,
  type Order,
  type Problem,
} from "./problem.ts";

/** Labels kept for one state, and in all: more would prune a little more and take much more memory. */
const labelsPerState = 48;
const labelsInAll = 2e6;

/** Whether `branchAndBound()` can tell the states of a problem of this size apart: its key must be a whole number. */
export function isSmall(problem: Problem): boolean {
  const { devices, microbatches } = problem;
  return devices * Math.log2(4 * (microbatches + 1) ** 3 * (hasMessages(problem) ? 4 : 1)) < 53;
}

/** Whether what a rank may run depends on what it ran last. */
function hasMessages({ sent, cap }: Problem): boolean {
  return sent.some((bytes, rank) => cap[rank] < Infinity && Math.max(...bytes) > 0);
}

/** Which of F, I, W and B is tried first where all can start at once. */
const preference = [1, 0, 2, 0.5];

/** One decision on the way: what a rank does next, and what to take back when it has been tried. */
interface Frame {
  rank: number;
  /** Kinds still to be tried. */
  kinds: number[];
  /** Kind that runs now, or that the rank has committed itself to wait for. */
  kind: number;
  /** The rank's free time and commitment before. */
  free: number;
  commitment: number;
  /** What it had run last. */
  last: number;
  ran: boolean;
}

/**
 * Looks at every order that could beat `best`, depth first: the rank that can start earliest runs one of its kinds, or
 * commits itself to wait for one that has not arrived. Cuts off what a lower bound, or a state with the same counts that
 * is nowhere later, shows to be no better; and a wait in which a W would have fit.
 *
 * Yields after every state, with an order where it found a better one. When it returns, the best one seen is optimal.
 */
export function* branchAndBound(problem: Problem, best: number): Generator<Order | undefined, void> {
  const { devices: n, microbatches: m, time, tails, slack, joins, gradient, backward } = problem;
  const { down, up } = linksOf(problem);
  const tail = tails.map(({ sum, time }) => sum + time);
  const state = nothingRun(problem), { ran, ended } = state;
  const kindsOf = joins.map((each) => each ? [I, F, W, B] : [I, F, W]);
  /** How many actions each rank has run. */
  const position: number[] = new Array(n).fill(0);
  const last: number[] = new Array(n).fill(-1);
  const withLast = hasMessages(problem);
  const free: number[] = new Array(n).fill(0);
  const commitment: number[] = new Array(n).fill(-1);
  const order = Array.from({ length: n }, () => new Uint8Array(3 * m));
  const seen = new Map<number, Float64Array[]>();
  const frames: Frame[] = [];
  let left = 3 * n * m;
  let stored = 0;
  // From the end of an F to the end of the I of the same micro-batch, at the soonest.
  const below: number[] = new Array(n).fill(0);
  for (let r = n - 1, sum = 0; r >= 0; r--) {
    below[r] = down[r] + sum + gradient[r];
    sum = below[r] + time[r][F] + up[r];
  }

  const arrival = (rank: number, kind: number) => arrivalOf(problem, state, rank, kind);
  const allowed = (rank: number, kind: number): boolean => {
    const [f, i, w] = ran[rank];
    if (kind === F ? f >= m : kind === W ? w >= i : i >= f) return false;
    return !exceeds(problem, rank, kind, ran[rank], last[rank]);
  };

  // Earliest starts of the next F and I of each rank, known or not: never later than they can really be.
  const nextF = new Float64Array(n);
  const nextI = new Float64Array(n);
  const bound = (): number => {
    for (let r = 0; r < n; r++) {
      if (ran[r][F] >= m) nextF[r] = Infinity;
      else {
        const known = arrival(r, F);
        nextF[r] = Math.max(free[r], known < Infinity ? known : nextF[r - 1] + time[r - 1][F] + down[r - 1]);
      }
    }
    for (let r = n - 1; r >= 0; r--) {
      if (ran[r][I] >= m) nextI[r] = Infinity;
      else {
        const known = arrival(r, I);
        const input = known < Infinity ? known : nextI[r + 1] + gradient[r + 1] + up[r + 1];
        nextI[r] = Math.max(free[r], input, ran[r][F] > ran[r][I] ? 0 : nextF[r] + time[r][F]);
      }
    }
    let most = 0;
    let after = backward[0] - gradient[0] + tail[0];
    for (let r = 0; r < n; r++) {
      const [f, i, w] = ran[r];
      const tf = time[r][F], tw = time[r][W], ti = gradient[r];
      const start = Math.min(nextF[r], nextI[r]);
      const begin = i > w ? free[r] : start;
      const work = (m - f) * tf + (m - i) * ti;
      const all = (m - f) * tf + (m - i) * backward[r] + (i - w) * tw;
      if (all > 0) most = Math.max(most, begin + all + tail[r]);
      if (i < m) most = Math.max(most, start + work + after, nextI[r] + (m - i) * ti + after);
      if (f < m) most = Math.max(most, nextF[r] + (m - f) * tf + below[r] + after);
      else if (w === m) most = Math.max(most, free[r] + tail[r]);
      after += ti + (r + 1 < n ? up[r + 1] : 0);
    }
    return most;
  };

  /** Whether an earlier state with the same counts and commitments was nowhere later than this one. */
  const dominated = (): boolean => {
    let key = 0;
    const label: number[] = [];
    for (let r = 0; r < n; r++) {
      for (const count of ran[r]) key = key * (m + 1) + count;
      key = key * 4 + (commitment[r] === B ? W : commitment[r]) + 1; // no rank commits itself to a W: that waits for nothing
      if (withLast) key = key * 4 + last[r] + 1;
      label.push(free[r]);
      if (r < n - 1) {
        for (let k = ran[r + 1][F]; k < ran[r][F]; k++) label.push(Math.max(free[r + 1], ended[F][r][k] + down[r]));
        for (let k = ran[r][I]; k < ran[r + 1][I]; k++) label.push(Math.max(free[r], ended[I][r + 1][k] + up[r + 1]));
      }
    }
    const labels = seen.get(key) ?? [];
    for (const other of labels) {
      let later = false;
      for (let k = 0; k < label.length && !later; k++) later = other[k] > label[k] + slack;
      if (!later) return true;
    }
    if (labels.length < labelsPerState && stored < labelsInAll) {
      labels.push(Float64Array.from(label));
      stored++;
      if (labels.length === 1) seen.set(key, labels);
    }
    return false;
  };

  /** The rank to decide on and what it may do: kinds that run at once first. */
  const choose = (): Frame | undefined => {
    let chosen = -1;
    let earliest = Infinity;
    for (let r = 0; r < n; r++) {
      for (const kind of commitment[r] >= 0 ? [commitment[r]] : kindsOf[r]) {
        if (!allowed(r, kind)) continue;
        const start = Math.max(free[r], arrival(r, kind));
        if (start < earliest) [chosen, earliest] = [r, start];
      }
    }
    if (chosen < 0) return undefined;
    const before = { free: free[chosen], commitment: commitment[chosen], last: last[chosen] };
    const frame = { rank: chosen, kind: -1, ...before, ran: false };
    if (commitment[chosen] >= 0) return { ...frame, kinds: [commitment[chosen]] };
    const starts = kindsOf[chosen].filter((kind) => allowed(chosen, kind)).map((kind) => {
      const known = Math.max(free[chosen], arrival(chosen, kind));
      return { kind, start: known < Infinity ? known : kind === F ? nextF[chosen] : nextI[chosen] };
    });
    // Whatever would fit into the wait, and cannot break the cap by coming earlier, might as well run first. A W can where messages
    // count: what ran before and after it then follow each other, and the message of one is held during the other.
    const endOf = ({ kind, start }: { kind: number; start: number }) => start + time[chosen][kind];
    // An I can where what would come later is a B: what is left of that, the W, must not take longer.
    const isSafe = ({ kind }: { kind: number }) =>
      problem.cap[chosen] === Infinity
        ? kind !== I || !joins[chosen] || time[chosen][W] <= time[chosen][B]
        : kind === W && !withLast;
    const soonest = starts.filter(isSafe)
      .sort((a, b) => endOf(a) - endOf(b)).at(0);
    const kinds = starts.filter((each) => !soonest || each === soonest || each.start + slack < endOf(soonest));
    kinds.sort((a, b) => a.start - b.start || preference[a.kind] - preference[b.kind]);
    return { ...frame, kinds: kinds.map(({ kind }) => kind) };
  };

  const undo = (frame: Frame) => {
    const { rank, kind } = frame;
    if (frame.ran) {
      count(ran[rank], kind, -1);
      position[rank]--;
      left += kind === B ? 2 : 1;
      frame.ran = false;
    }
    free[rank] = frame.free;
    commitment[rank] = frame.commitment;
    last[rank] = frame.last;
  };

  const open = (): void => {
    if (left === 0) return;
    if (bound() >= best - slack || dominated()) return;
    const frame = choose();
    if (frame) frames.push(frame);
  };

  open();
  while (frames.length > 0) {
    const frame = frames[frames.length - 1];
    if (frame.kind >= 0) undo(frame);
    const kind = frame.kinds.shift();
    if (kind === undefined) {
      frames.pop();
      continue;
    }
    const { rank } = frame;
    frame.kind = kind;
    const at = arrival(rank, kind);
    if (at === Infinity) commitment[rank] = kind;
    else {
      commitment[rank] = -1;
      order[rank][position[rank]++] = kind;
      free[rank] = Math.max(free[rank], at) + time[rank][kind];
      enter(state, rank, kind, free[rank]);
      last[rank] = kind === B ? I : kind; // what it sends is the same
      frame.ran = true;
      left -= kind === B ? 2 : 1;
    }
    let found: Order | undefined;
    if (left === 0) {
      const makespan = makespanOf(problem, free);
      if (makespan < best - slack) {
        best = makespan;
        found = order.map((list, r) => list.slice(0, position[r]));
      }
    } else open();
    yield found;
  }
}
