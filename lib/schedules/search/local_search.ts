import { B, I, W } from "../program.ts";
import { feasible } from "./amounts.ts";
import { type Critical, evaluator } from "./evaluator.ts";
import { codeOf, type Order, type Problem } from "./problem.ts";

/** Numbers in [0, 1) from a seed (mulberry32), so that a search can be repeated. */
export function seededRandom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Share of moves that are made anywhere, not along the longest chain. */
const anywhere = 0.2;

/**
 * Simulated annealing: moves one action of a rank a few places, mostly one that the longest chain goes through from the action before,
 * or that one; or splits a B or joins an I and a W where a B can be better. Keeps what is not slower, and now and then what is, less
 * often as it goes on. Yields after every move, with a new best order where it found one.
 */
export function* anneal(
  problem: Problem,
  start: Order,
  moves: number,
  { seed = 1, warm = 1 } = {},
): Generator<Order | undefined, void> {
  const next = seededRandom(seed);
  const { makespan: makespanOf, critical } = evaluator(problem);
  const current: Order = start.map((list) => list.slice());
  let value = makespanOf(current);
  let best = value;
  let chain = critical(current);
  const step = warm * Math.min(...problem.time.flat().filter((time) => time > 0), value);
  const canJoin = problem.on.map((stages) => stages.some((s) => problem.joins[s]));
  for (let move = 0; move < moves; move++) {
    let rank: number, from: number, to: number, reach: number;
    const draw = (most: number) => 1 + Math.floor(next() ** 2 * Math.min(most - 1, 3 * problem.stages));
    if (chain.length > 0 && next() >= anywhere) {
      const one: Critical = chain[Math.floor(next() * chain.length)];
      rank = one.rank;
      reach = draw(current[rank].length);
      // Itself to an earlier place, or the one before it to a later one.
      [from, to] = next() < 0.5 ? [one.at, one.at - reach] : [one.at - 1, one.at - 1 + reach];
    } else {
      rank = Math.floor(next() * problem.devices);
      from = Math.floor(next() * current[rank].length);
      reach = draw(current[rank].length);
      to = next() < 0.5 ? from - reach : from + reach;
    }
    const list = current[rank];
    const other = canJoin[rank] && next() < 0.3 ? splitOrJoined(problem, list, from, reach) : undefined;
    if (!other && (to < 0 || to >= list.length || list[from] === list[to])) {
      yield undefined;
      continue;
    }
    const changed = other ?? moved(list, from, to);
    let found: Order | undefined;
    if (feasible(problem, changed)) {
      current[rank] = changed;
      const makespan = makespanOf(current);
      const warmth = step * (1 - move / moves);
      if (makespan <= value || next() < Math.exp((value - makespan) / Math.max(warmth, problem.slack))) {
        value = makespan;
        chain = critical(current);
        if (makespan < best - problem.slack) {
          best = makespan;
          found = [...current];
        }
      } else current[rank] = list;
    }
    yield found;
  }
}

/** A list with one element moved; everything between makes room. */
function moved(list: Int32Array, from: number, to: number): Int32Array {
  const changed = list.slice();
  if (from < to) changed.copyWithin(from, from + 1, to + 1);
  else changed.copyWithin(to + 1, to, from);
  changed[to] = list[from];
  return changed;
}

/** A list with the B at a place split, its W so much later, or the I there joined with the next W; undefined where there is neither. */
function splitOrJoined({ joins }: Problem, list: Int32Array, at: number, reach: number): Int32Array | undefined {
  const codes = [...list], stage = codes[at] >> 2;
  if (!joins[stage]) return undefined;
  if ((codes[at] & 3) === B) {
    codes[at] = codeOf(stage, I);
    codes.splice(Math.min(codes.length, at + reach), 0, codeOf(stage, W));
  } else {
    const weight = (codes[at] & 3) === I ? codes.indexOf(codeOf(stage, W), at) : -1;
    if (weight < 0) return undefined;
    codes[at] = codeOf(stage, B);
    codes.splice(weight, 1);
  }
  return Int32Array.from(codes);
}
