import { B, F, I, W } from "../program.ts";
import { count, exceeds, isNext } from "./amounts.ts";
import { bounder } from "./remaining.ts";
import { type Order, portOf, type Problem } from "./problem.ts";
import { arrivalOf, codesOf, enter, makespanOf, nothingRun, type State } from "./state.ts";

/** Labels kept for one state, and in all: more would prune a little more and take much more memory. */
const labelsPerState = 48;
const labelsInAll = 2e6;

/** Whether a problem is so small that looking at every order may come to an end: by how many states it has. */
export function canBeProven({ stages, devices, microbatches }: Problem): boolean {
  return stages * 3 * Math.log2(microbatches + 1) + 2 * devices < 53;
}

/** Which of F, I, W and B is tried first where all can start at once. */
const preference = [1, 0, 2, 0.5];

/** One decision on the way: what a rank does next, and what to take back when it has been tried. */
interface Frame {
  rank: number;
  /** Codes still to be tried. */
  codes: number[];
  /** What runs now, or what the rank has committed itself to wait for. */
  code: number;
  /** The rank's free time and commitment before. */
  free: number;
  commitment: number;
  /** What it had run last. */
  last: number;
  /** When the stage's last W or B had ended. */
  over: number;
  ran: boolean;
}

/**
 * Looks at every order that could beat `best`, depth first: the rank that can start earliest runs one of its actions, or
 * commits itself to wait for one that has not arrived. Cuts off what a lower bound, or a state with the same counts that
 * is nowhere later, shows to be no better; and a wait in which what can only gain by it would have fit.
 *
 * Yields after every state, with an order where it found a better one. When it returns, the best one seen is optimal.
 */
export function* branchAndBound(problem: Problem, best: number): Generator<Order | undefined, void> {
  const { devices: n, stages, microbatches: m, on, time, slack } = problem;
  const state = nothingRun(problem), { ran, over } = state;
  const codes = on.map((list) => list.flatMap((s) => codesOf(problem, s)));
  /** How many actions each rank has run. */
  const position: number[] = new Array(n).fill(0);
  const last: number[] = new Array(n).fill(-1);
  const free: number[] = new Array(n).fill(0);
  const commitment: number[] = new Array(n).fill(-1);
  const order = on.map((list) => new Int32Array(3 * m * list.length));
  const { bound, nextOf } = bounder(problem, state, free);
  const dominated = memoryOf(problem, state, { free, commitment, last });
  const frames: Frame[] = [];
  let left = 3 * stages * m;

  const allowed = (rank: number, code: number) =>
    isNext(problem, code, ran) && !exceeds(problem, code, ran, last[rank]);
  const isSafe = safetyOf(problem, ran);

  /** The rank to decide on and what it may do: what runs at once first. */
  const choose = (): Frame | undefined => {
    let chosen = -1;
    let earliest = Infinity;
    for (let r = 0; r < n; r++) {
      for (const code of commitment[r] >= 0 ? [commitment[r]] : codes[r]) {
        if (!allowed(r, code)) continue;
        const start = Math.max(free[r], arrivalOf(problem, state, code));
        if (start < earliest) [chosen, earliest] = [r, start];
      }
    }
    if (chosen < 0) return undefined;
    const before = { free: free[chosen], commitment: commitment[chosen], last: last[chosen], over: 0 };
    const frame = { rank: chosen, code: -1, ...before, ran: false };
    if (commitment[chosen] >= 0) return { ...frame, codes: [commitment[chosen]] };
    const starts = codes[chosen].filter((code) => allowed(chosen, code)).map((code) => {
      const known = Math.max(free[chosen], arrivalOf(problem, state, code));
      return { code, start: known < Infinity ? known : nextOf(portOf(code >> 2, code & 3)) };
    });
    // Whatever would fit into the wait, and cannot break the cap by coming earlier, might as well run first.
    const endOf = ({ code, start }: { code: number; start: number }) => start + time[code >> 2][code & 3];
    const soonest = starts.filter(({ code }) => isSafe(code)).sort((a, b) => endOf(a) - endOf(b)).at(0);
    const kept = starts.filter((each) => !soonest || each === soonest || each.start + slack < endOf(soonest));
    kept.sort((a, b) => a.start - b.start || preference[a.code & 3] - preference[b.code & 3]);
    return { ...frame, codes: kept.map(({ code }) => code) };
  };

  const undo = (frame: Frame) => {
    const { rank, code } = frame;
    if (frame.ran) {
      count(ran, code, -1);
      position[rank]--;
      left += (code & 3) === B ? 2 : 1;
      over[code >> 2] = frame.over;
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
    if (frame.code >= 0) undo(frame);
    const code = frame.codes.shift();
    if (code === undefined) {
      frames.pop();
      continue;
    }
    const { rank } = frame;
    frame.code = code;
    const at = arrivalOf(problem, state, code);
    if (at === Infinity) commitment[rank] = code;
    else {
      commitment[rank] = -1;
      order[rank][position[rank]++] = code;
      free[rank] = Math.max(free[rank], at) + time[code >> 2][code & 3];
      frame.over = over[code >> 2];
      enter(problem, state, code, free[rank]);
      last[rank] = code;
      frame.ran = true;
      left -= (code & 3) === B ? 2 : 1;
    }
    let found: Order | undefined;
    if (left === 0) {
      const makespan = makespanOf(problem, free, over);
      if (makespan < best - slack) {
        best = makespan;
        found = order.map((list, r) => list.slice(0, position[r]));
      }
    } else open();
    yield found;
  }
}

/** Whether what a rank may run depends on what it ran last. */
function hasMessages({ sent, cap, placement }: Problem): boolean {
  return sent.some((bytes, stage) => cap[placement[stage]] < Infinity && Math.max(...bytes) > 0);
}

/**
 * Whether running an action earlier than an order has it, where nothing else has to wait for that, makes none that was possible
 * impossible.
 */
function safetyOf(problem: Problem, ran: Int32Array): (code: number) => boolean {
  const { placement, cap, time, joins, summed, give, microbatches } = problem;
  // Where messages count, what ran before and after a W then follow each other, and the message of one is held during the other.
  const withLast = hasMessages(problem);
  return (code) => {
    const stage = code >> 2, kind = code & 3;
    // An I can where what would come later is a B: what is left of that, the W, must not take longer.
    if (cap[placement[stage]] === Infinity) return kind !== I || !joins[stage] || time[stage][W] <= time[stage][B];
    if (kind !== W || withLast || give[stage][W] < 0) return false;
    return summed[stage] === 0 || ran[3 * stage + 2] < microbatches - 1;
  };
}

/** What the ranks are at. */
interface Ranks {
  readonly free: readonly number[];
  readonly commitment: readonly number[];
  readonly last: readonly number[];
}

/** Remembers states, and says whether an earlier one with the same counts and commitments was nowhere later than the one of now. */
function memoryOf(problem: Problem, { ran, ended, over }: State, { free, commitment, last }: Ranks): () => boolean {
  const { devices: n, stages, microbatches: m, placement, on, source, delay, sums, slack } = problem;
  const withLast = hasMessages(problem);
  const chunks = Math.max(...on.map((list) => list.length));
  /** A stage's place among those of its rank. */
  const local = placement.map((rank, s) => on[rank].indexOf(s));
  /** Of what a rank waits for or has sent: an I and a B are the same, as are W and nothing. */
  const passed = (code: number) =>
    code < 0 || (code & 3) === W ? 0 : 1 + 2 * local[code >> 2] + ((code & 3) === F ? 0 : 1);
  const seen = new Map<number | string, Float64Array[]>();
  const codes = 3 * chunks * 2 + 1;
  const isNumber = stages * Math.log2((m + 1) ** 3) + n * Math.log2(codes * (withLast ? codes : 1)) < 53;
  /** Ports whose messages are on their way between two ranks. */
  const ports = [...source.keys()].filter((port) =>
    source[port] >= 0 && placement[source[port] >> 1] !== placement[port >> 1]
  );
  let stored = 0;
  const keyOf = (): number | string => {
    let key = 0;
    const text: number[] = [];
    const add = (value: number, base: number) => {
      if (isNumber) key = key * base + value;
      else text.push(value);
    };
    for (let at = 0; at < 3 * stages; at++) add(ran[at], m + 1);
    for (let r = 0; r < n; r++) {
      // No rank commits itself to a W: that waits for nothing. Whether an I or a B, it makes a difference to what comes.
      const code = commitment[r];
      add(code < 0 ? 0 : 1 + 3 * local[code >> 2] + ((code & 3) === B ? 2 : code & 3), codes);
      if (withLast) add(passed(last[r]), codes);
    }
    return isNumber ? key : String.fromCharCode(...text);
  };
  return () => {
    const key = keyOf();
    const label: number[] = [...free];
    for (const port of ports) {
      const before = source[port], from = 3 * (before >> 1) + (before & 1), to = 3 * (port >> 1) + (port & 1);
      const there = free[placement[port >> 1]];
      for (let k = ran[to]; k < ran[from]; k++) label.push(Math.max(there, ended[before * m + k] + delay[port]));
    }
    for (let s = 0; s < stages; s++) if (sums[s] > 0 && ran[3 * s + 2] === m) label.push(over[s]);
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
}
