/** The end of a step on one rank: its gradients are added up and looked at, so that all ranks update their parameters, or none. */
import { keepBuffers, restoreBuffers } from "../layers/buffers.ts";
import type { Parameter } from "../layers/parameter.ts";
import { fill } from "../ops/elementwise.ts";
import { type Program, TIED } from "../schedules/program.ts";
import type { Tensor } from "../tensor.ts";
import { type Look, lookAtGradients, lookAtTensors, type Seen } from "./look.ts";
import { recordPass } from "./pass.ts";
import type { SumTime } from "./replica_sums.ts";
import { type MeanOfState, meanOfState } from "./replica_state.ts";
import type { Rank, Run, StepInput } from "./run.ts";
import { clearOthers } from "./sharded.ts";
import { endStageSums } from "./stage_sums.ts";
import { NotFiniteError, type Reduction } from "./transport.ts";
import { sumInto } from "./transports/reduce.ts";
import { nameOf, peerOf, placeOf } from "./world.ts";

/** A gradient that is infinite or NaN somewhere. */
export interface NotFinite {
  /** Whose parameter it is of. */
  readonly rank: number;
  /** Of which replica; absent where there is one. */
  readonly replica?: number;
  /** Name of the parameter. */
  readonly parameter: string;
}

/** What a rank tells the others before any of them updates its parameters. */
export interface Finding {
  /** The sum of the losses, where the last stage is. */
  readonly losses?: number;
  /** Name of its first parameter whose gradient is not finite. */
  readonly notFinite?: string;
  /** The sum of the squares of its gradients, where the update is to be clipped. */
  readonly squares?: number;
}

/** What the ranks have found together. */
export interface Verdict {
  /** The sum of the losses of all micro-batches. */
  readonly losses: number;
  /** What the lowest peer has found, or undefined where all gradients are finite. */
  readonly found: NotFinite | undefined;
  /** What all gradients are multiplied by for the update; 1 where they are not clipped. */
  readonly clipped: number;
}

/** What follows from the findings of all peers, in a step like this of so many replicas; on every rank the same. */
export function verdictOf(
  findings: readonly Finding[],
  { clip, lossScale }: Pick<StepInput, "clip" | "lossScale"> = {},
  replicas = 1,
): Verdict {
  const peer = findings.findIndex(({ notFinite }) => notFinite !== undefined);
  const { number: rank, replica } = placeOf(peer, findings.length / replicas);
  const norm = normOf(findings.map(({ squares = 0 }) => squares), lossScale?.value);
  return {
    losses: findings.reduce((sum, { losses = 0 }) => sum + losses, 0),
    found: peer < 0 ? undefined : { rank, ...(replicas > 1 ? { replica } : {}), parameter: findings[peer].notFinite! },
    clipped: clip === undefined ? 1 : Math.min(1, clip / (norm + 1e-6)), // as PyTorch's clip_grad_norm_
  };
}

/** The norm of the gradients of all ranks, of which each has so large a sum of squares, times that of the loss scale. */
export function normOf(squares: readonly number[], lossScale = 1): number {
  return Math.sqrt(squares.reduce((sum, own) => sum + own, 0)) / lossScale;
}

/**
 * The largest power of two that f32 has: the sum of two numbers below it is finite. So where no gradient reaches it, those of tied
 * parameters need not be looked at again when they have been added up, which would take another turn of host and device.
 */
const safe = 2 ** 127;

/** How a step ends on a rank. */
interface End {
  /** What is to be submitted. */
  readonly commands: GPUCommandBuffer | undefined;
  readonly verdict: Verdict;
  /** The sum of the squares of the rank's gradients, once the commands have run: those of tied parameters where the original is. */
  squares(): Promise<number>;
  /** When gradients were added up over replicas, if they were. */
  readonly sums?: readonly SumTime[];
}

/**
 * Finds out with the other ranks whether the step stands, and returns what is to be submitted then: the update, or where gradients
 * have overflowed what makes the step undone. Until then nothing is submitted that could not be taken back.
 *
 * @throws {NotFiniteError} Where the step fails: a loss or, unless a smaller loss scale may help, a gradient is not finite.
 */
export async function finish(run: Run): Promise<End> {
  const { rank, optimize, lossScale, program, clip } = run;
  const { device, transport, replicas } = rank;
  const times = replicas.length > 1 && optimize ? { sums: await endStageSums(run) } : {};
  const sums = optimize ? beginSums(rank) : [], state = meanOfState(rank);
  const hasTies = optimize && program.what.includes(TIED); // on every rank, those without tied parameters as well
  // To clip, the sums are needed first: then there is nothing to be seen before, and nothing to be recorded.
  const isEarly = clip === undefined || sums.length === 0;
  const look = isEarly ? recordLook(run, sums.length > 0 ? safe : Infinity, optimize ? apart(rank) : []) : undefined;
  device.submit();
  for (const sum of [...sums, ...state.parts]) sum.post();
  // Recorded while the others are still at work: it starts as soon as all have answered.
  let end = isEarly ? recordEnd(run, sums, state) : undefined;
  const [early] = await Promise.all([look?.(), ...[...sums, ...state.parts].map((sum) => sum.arrive())]);
  let seen = early ?? await lookAtSums(run, sums);
  end ??= recordEnd(run, [], state, []);
  const losses = await run.lossSum; // no step stands whose loss is not a number
  const tell = async ({ notFinite, squares }: Seen) =>
    verdictOf(
      await transport.agree({ losses, notFinite, ...(clip === undefined ? {} : { squares }) }),
      run,
      replicas.length,
    );
  let verdict = await tell(seen);
  if (verdict.found) {
    device.discard(end.commands);
    end.tied?.().catch(() => {}); // it gives its buffer back
  }
  if (verdict.found && hasTies && clip === undefined) {
    if (sums.length > 0) seen = await lookAtSums(run, sums);
    verdict = await tell(seen);
    if (!verdict.found) end = recordEnd(run, [], state, []);
  }
  for (const sum of [...sums, ...state.parts]) sum.release();
  const { found, clipped } = verdict;
  if (!found) {
    // What is written now is there before the commands run, which are recorded and not submitted.
    if (optimize && clipped < 1) prepareUpdate(run, clipped);
    const { commands, tied } = end, { squares } = seen;
    return { commands, verdict, squares: async () => squares + (tied ? (await tied()).squares : 0), ...times };
  }
  if (lossScale?.canShrink) {
    return {
      commands: recordSkipped(run),
      verdict,
      squares: () => Promise.resolve(NaN),
      ...times,
    };
  }
  const scaled = lossScale
    ? `, although the loss is scaled by no more than ${lossScale.value}: the training has diverged`
    : "";
  throw new NotFiniteError(
    `${
      nameOf({ number: found.rank, replica: found.replica ?? 0, replicas })
    } failed at ${device.activity}: the gradient of "${found.parameter}" is not finite${scaled}`,
  );
}

/** Writes what the update depends on besides gradients to the device. */
function prepareUpdate({ rank, rate = 1, lossScale }: Run, clipped: number): void {
  for (const optimizer of rank.optimizers) {
    // Without the factor the optimizer takes its own rate as it is, and not that times 1.
    const { learningRate } = optimizer;
    optimizer.prepare(rate === 1 ? undefined : rate * learningRate, (lossScale?.value ?? 1) / clipped);
  }
}

/** The tied parameters whose gradients a rank gives to another, or gets from there. */
function apart({ ties, number }: Rank): Parameter[] {
  return ties.filter(({ ranks }) => ranks.includes(number) && ranks.some((rank) => rank !== number))
    .flatMap(({ parameters }) => parameters);
}

/** Of these, the gradients that this rank counts, once they are summed up: of the originals, in the first replica. */
function summedHere({ ties, number, replica, stages }: Rank): Tensor[] {
  if (replica > 0) return [];
  return ties.filter(({ ranks }) => ranks[0] === number && ranks.some((rank) => rank !== number))
    .map((tie) => stages.get(tie.stages[0])!.parameter(tie.parameters[0]).gradient);
}

/**
 * The end of an evaluation: the ranks tell each other the loss. The running statistics become what they were, should a layer have moved
 * them on all the same.
 */
export async function finishEvaluation(run: Run): Promise<End> {
  const { device, transport, stages } = run.rank;
  const verdict = verdictOf(await transport.agree({ losses: await run.lossSum }));
  for (const { buffers } of stages.values()) if (buffers) restoreBuffers(buffers);
  return { commands: device.finish(), verdict, squares: () => Promise.resolve(0) };
}

/** Begins the sums of tied gradients, which are complete now; those that are both here are added at once. */
function beginSums(own: Rank): Reduction[] {
  const { ties, stages, number, transport } = own;
  const sums: Reduction[] = [];
  for (const [id, tie] of ties.entries()) {
    const parts = tie.ranks.flatMap((rank, at) =>
      rank === number ? [stages.get(tie.stages[at])!.parameter(tie.parameters[at]).gradient] : []
    );
    if (parts.length === tie.ranks.length) sumInto(parts, parts);
    else if (parts.length > 0) {
      const peers = tie.ranks.map((rank) => peerOf(own, rank));
      sums.push(transport.reduce(peers, id, parts[0]));
    }
  }
  return sums;
}

/** Makes the sums, and looks at all gradients once more: now those of tied parameters count too. */
async function lookAtSums(run: Run, sums: readonly Reduction[]): Promise<Seen> {
  sums.forEach((sum) => sum.record());
  const look = recordLook(run, Infinity, []);
  run.rank.device.submit();
  return await look();
}

/**
 * Records a look at a rank's gradients, which reads each of them once. To be called once that is submitted: the returned
 * function, which waits for all work before. What it says of an element that is NaN or of a magnitude of `limit` or more is the name of
 * the first parameter whose gradient has one. Copies of tied parameters do not count, nor those `leftOut`.
 */
function recordLook(
  { rank, program, optimize }: Run,
  limit: number,
  leftOut: readonly Parameter[],
): () => Promise<Seen> {
  const copies = rank.ties.map(({ parameters: [, copy] }) => copy);
  const isLeftOut = (parameter: Parameter) => copies.includes(parameter) || leftOut.includes(parameter);
  const look = recordPass(
    rank,
    countOf(rank, program),
    () => lookAtGradients(rank, limit, isLeftOut, optimize),
  );
  return look.read();
}

/**
 * Records the end of a step that stands: sums and update, where there is to be one, and that the state is good as it is. Of the
 * gradients in `tied` the squares are taken on the way, which the look before the sums has not counted.
 */
function recordEnd(
  run: Run,
  sums: readonly Reduction[],
  state: MeanOfState,
  tied: readonly Tensor[] = run.optimize ? summedHere(run.rank) : [],
): Pick<End, "commands"> & { tied?: () => Promise<Seen> } {
  const { rank, program, optimize } = run;
  const { device, optimizers, stages } = rank;
  let look: Look | undefined;
  if (optimize) {
    recordPass(rank, countOf(rank, program) + 1, () => {
      prepareUpdate(run, 1);
      sums.forEach((sum) => sum.record());
      if (tied.length > 0) look = lookAtTensors(rank, `tied look of rank ${rank.number}`, tied);
      return {
        record() {
          look?.record();
          optimizers.forEach((optimizer) => optimizer.step());
          clearOthers(rank);
        },
      };
    });
  }
  const read = look?.read();
  state.record();
  for (const { buffers } of stages.values()) if (buffers) keepBuffers(buffers);
  return { commands: device.finish(), ...(read ? { tied: read } : {}) };
}

/** Records that a step has not been: in the pass that the update would have had. */
function recordSkipped({ rank, program, optimize }: Run): GPUCommandBuffer | undefined {
  const { device, stages } = rank;
  const record = () => clearGradients(rank);
  if (optimize) recordPass(rank, countOf(rank, program) + 1, () => ({ record }));
  else record();
  for (const { buffers } of stages.values()) if (buffers) restoreBuffers(buffers);
  return device.finish();
}

/** How many actions, and so passes, come before the end. */
const countOf = ({ number }: Rank, { schedule }: Program) => schedule.actions[number].length;

/** Records that all gradients of a rank are zero. */
export function clearGradients({ stages }: Rank): void {
  for (const { blocks } of stages.values()) for (const { gradients } of blocks) fill(gradients, 0);
}
