/** Micro-batch after micro-batch: the order that holds least, to start from, and to say which caps are too small. */
import { UserError } from "../../errors.ts";
import type { StageMemory } from "../price/memory.ts";
import { B, F, I, W } from "../program.ts";
import { rounded, standingOf } from "./amounts.ts";
import { codeOf, type Problem } from "./problem.ts";

/** More stages a rank than this are all run the same way: the ways to run one micro-batch are too many to try. */
const mostTried = 4;

/** What a rank runs of a micro-batch, and what it holds at most if it does so with each. */
interface Turn {
  readonly codes: readonly number[];
  readonly peak: number;
}

/**
 * By rank what it runs of one micro-batch, each backward whole or split and each W at once or later, such that least is held.
 *
 * @throws {UserError} For a cap under which a rank cannot run one micro-batch after another, all in the same way, and end the step.
 */
export function inTurnOf(
  problem: Omit<Problem, "inTurn">,
  models: readonly StageMemory[],
  cap: number,
): Turn["codes"][] {
  const turns = problem.on.map((stages, rank) => {
    // Without a cap any will do.
    const choices: Choice[] = cap === Infinity ? ["split"] : stages.length > mostTried ? ["split", "whole"] : ["any"];
    return choices.map((choice) => leastTurn(problem, models, rank, choice))
      .reduce((best, turn) => turn.peak < best.peak ? turn : best);
  });
  const needs = turns.map(({ peak }, rank) => {
    const sum = (amount: (model: StageMemory) => number) =>
      problem.on[rank].reduce((total, s) => total + amount(models[s]), 0);
    return sum((model) => standingOf(model, problem.microbatches)) + Math.max(peak, sum(({ update = 0 }) => update));
  });
  // The rank that needs most: what it needs is enough for all.
  const most = needs.reduce((worst, amount, r) => amount > needs[worst] ? r : worst, 0);
  if (needs[most] > rounded(cap)) {
    throw new UserError(`A cap of ${cap} is too small: rank ${most} needs ${needs[most]} for a single micro-batch`);
  }
  return turns.map(({ codes }) => codes);
}

/** What may be tried: everything, or all backwards the same way and each W at once. */
type Choice = "any" | "split" | "whole";

function leastTurn(
  problem: Omit<Problem, "inTurn">,
  models: readonly StageMemory[],
  rank: number,
  choice: Choice,
): Turn {
  const { placement, sequence, take, give, workspace, sent, summed, joins, microbatches, own } = problem;
  const stages = problem.on[rank], ports = sequence.filter((port) => placement[port >> 1] === rank);
  const bitOf = new Map(stages.map((s, at) => [s, 1 << at]));
  /** What an F takes more where its backward is whole, or split, than the least of both. */
  const beyond = (s: number, isWhole: boolean) => {
    const { activations, whole = activations } = models[s];
    return joins[s] ? (isWhole ? whole : activations) - Math.min(activations, whole) : 0;
  };
  const known = new Map<string, Turn>();
  /** The rest of a micro-batch: from a port on, with some W pending and some stages whole. */
  const rest = (at: number, pending: number, whole: number, held: number, last: number): Turn => {
    if (at === ports.length && pending === 0) {
      // What was sent last is under way when the next micro-batch begins.
      const s = ports[0] >> 1, next = take[s][F] + workspace[s][F] + (last < 0 ? 0 : sent[last >> 2][last & 3]);
      return { codes: [], peak: microbatches > 1 ? next : 0 };
    }
    const key = `${at} ${pending} ${whole} ${last}`, before = known.get(key);
    if (before) return before;
    let best: Turn | undefined;
    const underway = last < 0 ? 0 : sent[last >> 2][last & 3];
    const run = (code: number, taken: number, left: number, then: (held: number) => Turn) => {
      const during = held + taken + workspace[code >> 2][code & 3] + underway;
      const after = then(held + left), peak = Math.max(during, after.peak);
      if (!best || peak < best.peak) best = { codes: [code, ...after.codes], peak };
    };
    for (const s of stages) {
      const bit = bitOf.get(s)!;
      if (!(pending & bit)) continue;
      const left = summed[s] - give[s][W] - beyond(s, false), code = codeOf(s, W);
      run(code, 0, left, (held) => rest(at, pending & ~bit, whole, held, code));
      if (choice !== "any") return keep(best!);
    }
    if (at < ports.length) {
      const s = ports[at] >> 1, bit = bitOf.get(s)!, code = codeOf(s, ports[at] & 1 ? (whole & bit ? B : I) : F);
      const kind = code & 3;
      const ways = choice === "any" ? [false, true] : [choice === "whole"];
      for (const isWhole of kind === F && joins[s] ? ways : [(whole & bit) !== 0]) {
        const taken = take[s][kind] + (kind === F ? beyond(s, isWhole) : 0);
        const given = kind === B ? own[s].activations + beyond(s, true) : give[s][kind];
        const left = taken - given + (kind === B ? summed[s] : 0);
        const [mask, waiting] = [kind === F && isWhole ? whole | bit : whole, kind === I ? pending | bit : pending];
        run(code, taken, left, (held) => rest(at + 1, waiting, mask, held, code));
      }
    }
    return keep(best!);
    function keep(turn: Turn): Turn {
      known.set(key, turn);
      return turn;
    }
  };
  return rest(0, 0, 0, 0, -1);
}
