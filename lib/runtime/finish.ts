/** The end of a step on one rank: its gradients are added up and looked at, so that all ranks update their parameters, or none. */
import { keepBuffers, restoreBuffers } from "../layers/buffers.ts";
import { parameterAt } from "../layers/parameter_blocks.ts";
import { alignment } from "../memory.ts";
import { fill } from "../ops/elementwise.ts";
import { findNotFinite, notFiniteAt } from "../ops/finite.ts";
import { type Program, TIED } from "../schedules/program.ts";
import { empty, release, view } from "../tensor.ts";
import { recordPass } from "./pass.ts";
import type { Rank, Run } from "./run.ts";
import { RankError, type Reduction } from "./transport.ts";
import { sumInto } from "./transports/reduce.ts";

/** A gradient that is infinite or NaN somewhere. */
export interface NotFinite {
  /** Whose parameter it is of. */
  readonly rank: number;
  /** Name of the parameter. */
  readonly parameter: string;
}

/** What a rank tells the others before any of them updates its parameters. */
export interface Finding {
  /** The sum of the losses, where the last stage is. */
  readonly losses?: number;
  /** Name of its first parameter whose gradient is not finite. */
  readonly notFinite?: string;
}

/** What the ranks have found together. */
export interface Verdict {
  /** The sum of the losses of all micro-batches. */
  readonly losses: number;
  /** What the lowest rank has found, or undefined where all gradients are finite. */
  readonly found: NotFinite | undefined;
}

/** What follows from the findings of all ranks; on every rank the same. */
export function verdictOf(findings: readonly Finding[]): Verdict {
  const rank = findings.findIndex(({ notFinite }) => notFinite !== undefined);
  return {
    losses: findings.reduce((sum, { losses = 0 }) => sum + losses, 0),
    found: rank < 0 ? undefined : { rank, parameter: findings[rank].notFinite! },
  };
}

/**
 * The largest power of two that f32 has: the sum of two numbers below it is finite. So where no gradient reaches it, those of tied
 * parameters need not be looked at again when they have been added up, which would take another turn of host and device.
 */
const safe = 2 ** 127;

/**
 * Finds out with the other ranks whether the step stands, and returns what is to be submitted then: the update, or where gradients
 * have overflowed what makes the step undone. Until then nothing is submitted that could not be taken back.
 *
 * @throws {RankError} Where the step fails: a loss or, unless a smaller loss scale may help, a gradient is not finite.
 */
export async function finish(run: Run): Promise<{ commands: GPUCommandBuffer | undefined; verdict: Verdict }> {
  const { rank, optimize, lossScale, program } = run;
  const { device, transport } = rank;
  const sums = optimize ? beginSums(rank) : [];
  const look = recordLook(run, sums.length > 0 ? safe : Infinity);
  device.submit();
  sums.forEach((sum) => sum.post());
  // Recorded while the others are still at work: it starts as soon as all have answered.
  let commands = recordEnd(run, sums);
  const [notFinite] = await Promise.all([look(), ...sums.map((sum) => sum.arrive())]);
  const losses = await run.lossSum; // no step stands whose loss is not a number
  let verdict = verdictOf(await transport.agree({ losses, notFinite }));
  if (verdict.found && optimize && program.what.includes(TIED)) { // on every rank, those without tied parameters as well
    device.discard(commands);
    const again = sums.length > 0 ? await lookAtSums(run, sums) : notFinite;
    verdict = verdictOf(await transport.agree({ losses, notFinite: again }));
    if (!verdict.found) commands = recordEnd(run, []);
  } else if (verdict.found) device.discard(commands);
  sums.forEach((sum) => sum.release());
  const { found } = verdict;
  if (!found) return { commands, verdict };
  if (lossScale?.canShrink) return { commands: recordSkipped(run), verdict };
  const scaled = lossScale
    ? `, although the loss is scaled by no more than ${lossScale.value}: the training has diverged`
    : "";
  throw new RankError(
    `Rank ${found.rank} failed at ${device.activity}: the gradient of "${found.parameter}" is not finite${scaled}`,
  );
}

/**
 * The end of an evaluation: the ranks tell each other the loss. The running statistics become what they were, should a layer have moved
 * them on all the same.
 */
export async function finishEvaluation(
  run: Run,
): Promise<{ commands: GPUCommandBuffer | undefined; verdict: Verdict }> {
  const { device, transport, stages } = run.rank;
  const verdict = verdictOf(await transport.agree({ losses: await run.lossSum }));
  for (const { buffers } of stages.values()) if (buffers) restoreBuffers(buffers);
  return { commands: device.finish(), verdict };
}

/** Begins the sums of tied gradients, which are complete now; those that are both here are added at once. */
function beginSums({ ties, stages, number, transport }: Rank): Reduction[] {
  const sums: Reduction[] = [];
  for (const [id, tie] of ties.entries()) {
    const own = tie.ranks.flatMap((rank, at) =>
      rank === number ? [stages.get(tie.stages[at])!.parameter(tie.parameters[at]).gradient] : []
    );
    if (own.length === tie.ranks.length) sumInto(own, own);
    else if (own.length > 0) sums.push(transport.reduce(tie.ranks, id, own[0]));
  }
  return sums;
}

async function lookAtSums(run: Run, sums: readonly Reduction[]): Promise<string | undefined> {
  sums.forEach((sum) => sum.record());
  const look = recordLook(run, Infinity);
  run.rank.device.submit();
  return await look();
}

/**
 * Records a look at a rank's gradients, which reads each of them once. To be called once that is submitted: the returned
 * function, which waits for all work before, and gives the name of the first parameter whose gradient has an element that is NaN
 * or of a magnitude of `limit` or more.
 */
function recordLook({ rank, program }: Run, limit: number): () => Promise<string | undefined> {
  const { device } = rank;
  const blocks = [...rank.stages.values()].flatMap(({ blocks }) => blocks);
  const found = empty(device, [Math.max(1, blocks.length), alignment / 4], "workspace", "u32");
  recordPass(rank, countOf(rank, program), () => ({
    record() {
      fill(found, 0);
      blocks.forEach(({ gradients }, index) => {
        const own = view(found, [1], index * alignment);
        findNotFinite(own, gradients, limit);
        release(own);
      });
    },
  }));
  const read = device.startRead(found, `look of rank ${rank.number}`);
  release(found);
  return async () => {
    const words = new Uint32Array(await read());
    for (const [index, block] of blocks.entries()) {
      const at = notFiniteAt(words[index * alignment / 4]);
      if (at !== undefined) return parameterAt(block, at).name;
    }
    return undefined;
  };
}

/** Records the end of a step that stands: sums and update, where there is to be one, and that the state is good as it is. */
function recordEnd(run: Run, sums: readonly Reduction[]): GPUCommandBuffer | undefined {
  const { rank, program, optimize, lossScale } = run;
  const { device, optimizers, stages } = rank;
  if (optimize) {
    recordPass(rank, countOf(rank, program) + 1, () => {
      optimizers.forEach((optimizer) => optimizer.prepare(undefined, lossScale?.value));
      sums.forEach((sum) => sum.record());
      return { record: () => optimizers.forEach((optimizer) => optimizer.step()) };
    });
  }
  for (const { buffers } of stages.values()) if (buffers) keepBuffers(buffers);
  return device.finish();
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
