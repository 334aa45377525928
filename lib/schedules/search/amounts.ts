/** What a search knows of memory: for each stage, what an action adds to what its rank holds, and takes from it. */
import type { StageMemory } from "../price/memory.ts";
import { B, F, I, inputOf, isMessage, outputOf, type Program, W } from "../program.ts";
import type { Amounts, Each, Problem } from "./problem.ts";

/** A cap with a little for rounding: sums of amounts in another order differ in their last bits. */
export const rounded = (cap: number) => cap * (1 + 1e-12);

/** What a stage holds all the time in a step of so many micro-batches. */
export function standingOf(
  { parameters = 0, gradients = 0, optimizer = 0, transfer = 0, losses = 0 }: StageMemory,
  microbatches: number,
): number {
  return parameters + gradients + optimizer + transfer + losses * microbatches;
}

/** What {@link amountsOf} goes by: a lowered micro-batch says what is sent to other ranks and what is handed over. */
interface Given {
  readonly program: Program;
  readonly models: readonly StageMemory[];
  readonly time: readonly Each[];
  readonly microbatches: number;
  readonly cap: number;
  readonly slack: number;
}

/** The amounts of each stage, by a memory model. */
export function amountsOf({ program, models, time, microbatches, cap, slack }: Given): Amounts {
  const { forward, backward, stage, to, schedule: { placement }, devices } = program;
  const isSent = (node: number) => {
    const edge = outputOf(program, node);
    return edge >= 0 && isMessage(program, edge);
  };
  /** What an input that the same rank makes adds, and takes away again where it is used. */
  const handed = (node: number, passes: "F" | "I") => {
    const input = inputOf(program, node), output = outputOf(program, node);
    const inputAt = (at: number) => models[at].input?.[passes] ?? 0;
    const used = input >= 0 && !isMessage(program, input) ? inputAt(stage[node]) : 0;
    return (output >= 0 && !isMessage(program, output) ? inputAt(stage[to[output]]) : 0) - used;
  };
  /** What the model of the stage that a stage hands to says of their common tensor. */
  const sharedBy = (node: number) => {
    const output = outputOf(program, node);
    return output >= 0 && !isMessage(program, output) ? models[stage[to[output]]].shared : undefined;
  };
  const sentOf = (amounts: (stage: StageMemory) => StageMemory["messages"]) =>
    models.map((model, s): Each => {
      const gradient = isSent(backward[s]) ? amounts(model)?.I ?? 0 : 0;
      return [isSent(forward[s]) ? amounts(model)?.F ?? 0 : 0, gradient, 0, gradient];
    });
  const sent = sentOf(({ messages }) => messages);
  // How long it is held besides depends on what the receiver does: see `keepsCap`.
  const staged = sentOf(({ staging }) => staging);
  const received = (node: number, passes: "F" | "I") => {
    const input = inputOf(program, node);
    return input >= 0 && isMessage(program, input) ? models[stage[node]].arriving?.[passes] ?? 0 : 0;
  };
  const workspace = models.map(({ workspace = {} }, s): Each => {
    const arriving = received(backward[s], "I");
    return [
      (workspace.F ?? 0) + sent[s][F] + staged[s][F] + received(forward[s], "F"),
      (workspace.I ?? 0) + sent[s][I] + staged[s][I] + arriving - (sharedBy(forward[s])?.reused ?? 0),
      workspace.W ?? 0,
      (workspace.B ?? 0) + sent[s][B] + staged[s][B] + arriving,
    ];
  });
  const joins = models.map((model, s) => {
    const { activations, derivatives, released = 0, whole = activations } = model, [, i, w, b] = time[s];
    const [, ofI, ofW, ofB] = workspace[s];
    const holdsLess = derivatives + ofI > ofB || derivatives - released + sent[s][I] + ofW > ofB || whole < activations;
    return b < i + w - slack || (cap < Infinity && (holdsLess || model.staging !== undefined));
  });
  const own = models.map(({ activations, derivatives, whole = activations }, s) => {
    const input = inputOf(program, forward[s]), isHanded = input >= 0 && !isMessage(program, input);
    // A tensor that two stages keep is left out: whether it is counted twice depends on which of them ends first.
    const shared = isHanded ? models[s].shared?.kept ?? 0 : 0;
    return { activations: (joins[s] ? Math.min(activations, whole) : activations) - shared, derivatives };
  });
  const take = own.map(({ activations, derivatives }, s): Each => {
    const shared = sharedBy(forward[s])?.kept ?? 0;
    const input = inputOf(program, forward[s]), isHanded = input >= 0 && !isMessage(program, input);
    const others = isHanded ? models[s].shared?.kept ?? 0 : 0;
    const gradient = handed(backward[s], "I");
    // It is left out of what the stage before takes: that makes it.
    return [activations + others - shared + handed(forward[s], "F"), derivatives + gradient, 0, gradient];
  });
  const give = own.map(({ activations, derivatives }, s): Each => {
    const { released = 0 } = models[s], rest = activations - released + derivatives;
    return [0, released, rest, released + rest];
  });
  const stagesOn = Array.from(
    { length: devices },
    (_, rank) => models.map((_, s) => s).filter((s) => placement[s] === rank),
  );
  return {
    joins,
    take,
    give,
    own,
    workspace,
    sent,
    summed: models.map(({ sum = 0 }) => sum),
    room: stagesOn.map((list) =>
      // Where an F gives back more than it takes, the next backward may have room after it that it does not have now.
      list.some((s) => take[s][F] < 0) ? -Infinity : list.reduce(
        (least, s) => {
          const split = take[s][I] + workspace[s][I];
          return Math.min(least, joins[s] ? Math.min(split, take[s][B] + workspace[s][B]) : split);
        },
        Infinity,
      )
    ),
    cap: stagesOn.map((list) => list.reduce((left, s) => left - standingOf(models[s], microbatches), rounded(cap))),
    isRough: models.some(({ staging, shared, activations, whole = activations }, s) =>
      staging || shared || (joins[s] && whole !== activations)
    ),
  };
}

/**
 * Whether starting what a code says would hold too much.
 *
 * @param ran How many F, I and W of each stage have run, a B being one of the last two each.
 * @param last The code that the rank ran last, whose message may still be under way; -1 for none.
 */
export function exceeds(problem: Problem, code: number, ran: ArrayLike<number>, last: number): boolean {
  const { placement, on, take, give, cap, microbatches, summed } = problem;
  const stage = code >> 2, kind = code & 3, rank = placement[stage];
  if (cap[rank] === Infinity) return false;
  let held = take[stage][kind], stays = take[stage][kind];
  const list = on[rank];
  for (let at = 0; at < list.length; at++) {
    const s = list[at], taken = take[s], given = give[s];
    const f = ran[3 * s], i = ran[3 * s + 1], w = ran[3 * s + 2];
    const before = f * taken[F] + i * (taken[I] - given[I]);
    held += before - w * given[W] + (w === microbatches ? summed[s] : 0);
    stays += before - i * given[W];
  }
  const underway = last < 0 ? 0 : problem.sent[last >> 2][last & 3];
  if (held + problem.workspace[stage][kind] + underway > cap[rank]) return true;
  // Once every W that is pending has run, the next backward must still fit, or the rank is stuck.
  return kind === F && stays + problem.room[rank] > cap[rank];
}

/** Whether an action of a stage may run by what has run: an F of a micro-batch comes before its I or B, and an I before its W. */
export function isNext({ microbatches }: Problem, code: number, ran: ArrayLike<number>): boolean {
  const at = 3 * (code >> 2), kind = code & 3;
  return kind === F ? ran[at] < microbatches : kind === W ? ran[at + 2] < ran[at + 1] : ran[at + 1] < ran[at];
}

/** Counts an action that has run, or with -1 one that is taken back. */
export function count(ran: Int32Array, code: number, by: number): void {
  const at = 3 * (code >> 2), kind = code & 3;
  if (kind !== B) ran[at + kind] += by;
  else {
    ran[at + 1] += by;
    ran[at + 2] += by;
  }
}

/** Whether a rank's order keeps F before I or B, I before W, and its cap. */
export function feasible(problem: Problem, order: Int32Array): boolean {
  const ran = new Int32Array(3 * problem.stages);
  let last = -1;
  for (const code of order) {
    if (!isNext(problem, code, ran) || exceeds(problem, code, ran, last)) return false;
    count(ran, code, 1);
    last = code;
  }
  return true;
}
