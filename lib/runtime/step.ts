/** A step of a pipeline: checked before anything runs, run by the ranks, and then it stands as a whole or has never happened. */
import { reasonOf, UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { DeviceError } from "../gpu/device_error.ts";
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import type { Interval } from "../gpu/timing.ts";
import { anything, expectFields, flag, optional, real, type Rules } from "../rules.ts";
import type { Program } from "../schedules/program.ts";
import { formatAction, type Schedule } from "../schedules/schedule.ts";
import { checkBatch } from "../train/check_batch.ts";
import { type Batch, mapArrays } from "../train/data.ts";
import { isIdle } from "./action.ts";
import { type Context, expectUsable, lostGradients, replicasOf } from "./context.ts";
import { expectAlike, fingerprint, nameOfPeer, ofAllPeers } from "./elsewhere.ts";
import { clearGradients, normOf, type NotFinite } from "./finish.ts";
import { type RankPeak, runRank, type StepOutput } from "./rank.ts";
import type { Stall, StepInput } from "./run.ts";
import { checkStall } from "./stall.ts";
import type { SumTime } from "./replica_sums.ts";
import { RankError } from "./transport.ts";
import { type Marks, undo } from "./undo.ts";
import { nameOf, placeOf } from "./world.ts";

/**
 * What a step gave. Lists by rank have, of several replicas, those of the first replica rank by rank, then those of the next.
 */
export interface StepResult {
  /** Mean loss over the targets of the batch that count. */
  readonly loss: number;
  /** Wall-clock time from the first action to the moment when every device has finished. */
  readonly wallMs: number;
  /**
   * Device time of each rank's actions, in the order of its list; then that of the look for gradients that are not finite, and
   * last the optimizer's, if one ran. The W of a stage that trains nothing has no length. Absent where a device has no
   * timestamps. Each rank's device has a clock of its own.
   */
  readonly intervals?: readonly (readonly Interval[])[];
  /**
   * The Euclidean norm of all gradients that the update was made of, before they were clipped, without the loss scale: frozen
   * parameters have none, tied ones count once, with the sum of both. Absent where there was no update.
   */
  readonly gradientNorm?: number;
  /** What the gradients were multiplied by so that their norm is not above `clip`; absent where that was not asked for. */
  readonly clipped?: number;
  /** The learning rate of the update, of parameters in no group; absent where there was none. */
  readonly learningRate?: number;
  /** By rank the other ranks whose tied gradients its update waited for; absent where there was no update. */
  readonly optimizerAfter?: readonly (readonly number[])[];
  /** In mixed precision what the loss was multiplied by for the backward. */
  readonly lossScale?: number;
  /**
   * In mixed precision whether gradients overflowed: then the step has changed nothing but the loss scale, see `LossScale`. In f32
   * such a step fails.
   */
  readonly skipped?: boolean;
  /** Where gradients overflowed: the first such parameter of the lowest rank. */
  readonly overflow?: NotFinite;
  /**
   * By rank when the gradients of its stages were added up over replicas, in the order in which the sums began; absent where there was no
   * update, or one replica.
   */
  readonly sums?: readonly (readonly SumTime[])[];
  /** The most bytes in use at once on each rank, and of each category by itself. */
  readonly peaks: readonly RankPeak[];
  /** Of each rank every change of what is in use, if the step was asked for it; see `actionsOf`. */
  readonly timeline?: readonly (readonly LedgerPoint[])[];
}

/** What a step may be told. */
export interface StepOptions {
  /**
   * Whether the optimizer updates the parameters at the end; yes by default. Without, the gradients stay to be read until the
   * next step. All else is as in training: dropout drops, and batch normalisation moves its running statistics.
   */
  readonly optimize?: boolean;
  /**
   * Whether the step's gradients are added to those that the steps before have left (without `optimize`), so that several steps
   * make one update: of the sum of their gradients; for the mean, give each a {@link StepOptions.share}. No by default: the step starts
   * from zero, and what was added up so far is gone. An evaluation may come in between.
   */
  readonly accumulate?: boolean;
  /**
   * What this batch's gradients are multiplied by, above 0: 1/4 for each of four steps that make one update of the mean. 1 by default.
   * The loss is reported as it is.
   */
  readonly share?: number;
  /**
   * What all learning rates of the optimizer are multiplied by in this step, 0 or more: what `cosineDecay()` and other functions of the step
   * give. 1 by default.
   */
  readonly rate?: number;
  /**
   * The most that the Euclidean norm of all gradients together may be, above 0: where it is larger, all are multiplied by `clip / (norm +
   * 1e-6)`, as PyTorch's `clip_grad_norm_` does. Not clipped by default.
   */
  readonly clip?: number;
  /** Whether to record what is in use over time, see {@link StepResult.timeline}. */
  readonly timeline?: boolean;
  /**
   * Holds a rank up after each of its full backwards, before it sends: its device is waited for, and then nothing happens there for
   * that time, as where an allocator gives back its memory and takes it anew. To measure what such a pause costs; not by default.
   */
  readonly stall?: Stall;
}

const rules: Rules<StepOptions> = {
  optimize: optional(flag),
  accumulate: optional(flag),
  share: optional(real({ least: "above 0" })),
  rate: optional(real({ least: 0 })),
  clip: optional(real({ least: "above 0" })),
  timeline: optional(flag),
  stall: anything, // in its own words
};

/**
 * Runs one step of `schedule` on `batch`. It either stands as a whole, on every rank, or has never happened: until all ranks
 * have found their gradients finite and every message and submission good, no parameter, moment or count changes, and what
 * does change before (gradients, running statistics) is set back where the step fails.
 *
 * @throws {UserError} When schedule, batch and pipeline do not fit each other; nothing has run then.
 * @throws {Error} When a rank fails, or the loss or a gradient is not finite; rank and action are named, and the memory of
 * the step is given back. Where a device is lost, the pipeline says so from then on.
 */
export async function runStep(
  context: Context,
  schedule: Schedule,
  batch: Batch,
  options: StepOptions = {},
): Promise<StepResult> {
  expectFields("step", options, rules);
  const { optimize = true, accumulate = false, timeline = false, share = 1, rate = 1, clip, stall } = options;
  const { model, ranks, end, lossScale, condition } = context;
  for (const name of ["rate", "clip"] as const) {
    if (optimize || options[name] === undefined) continue;
    throw new UserError(`step: \`${name}\` is about the update, and with \`optimize: false\` there is none`);
  }
  const program = context.programOf(schedule);
  if (program.forwardOnly) {
    throw new UserError(
      `Schedule ${schedule.name} runs forward passes alone: a step trains, and evaluate() runs these`,
    );
  }
  if (stall !== undefined) checkStall(stall, program);
  const held = stall && { ...stall };
  const replicas = replicasOf(context);
  const targets = checkBatch(model, batch, program.microbatches, replicas);
  if (accumulate && condition.gradients === "lost") throw new UserError(lostGradients);
  ranks.forEach(({ device }) => expectNoError(device));
  const own = withOwnIds(batch); // before anything is waited for: its owner may change it
  await expectAlike(context, () => `a step of ${callOf(program, own)} with ${JSON.stringify(options)}`);
  const marks = ranks.map(({ device }) => device.pool.mark());
  const scale = lossScale?.value;
  const { outputs, wallMs } = await runRanks(context, marks, condition.gradients !== "zero" && !accumulate, {
    program,
    batch: own,
    shapes: shapesOf(context, own.samples / (program.microbatches * replicas)),
    targets,
    optimize,
    timeline,
    share,
    rate,
    ...(clip === undefined ? {} : { clip }),
    ...(held ? { stall: held } : {}),
    ...(lossScale ? { lossScale: { value: lossScale.value, canShrink: lossScale.canShrink } } : {}),
  });
  // The step stands, or all ranks have left it out alike.
  const [{ verdict: { losses, found: overflow } }] = outputs;
  if (optimize && !overflow) commit(context);
  if (!overflow) condition.gradients = optimize ? "zero" : "summed";
  else condition.gradients = accumulate && condition.gradients === "summed" ? "lost" : "zero";
  if (overflow || optimize) lossScale?.update(overflow !== undefined);
  for (const [peer, { fault }] of outputs.entries()) {
    if (fault !== undefined) {
      condition.broken ??= `${nameOfPeer(context, peer)} failed while it updated its parameters: ${fault}`;
    }
  }
  expectUsable(context);
  const intervals = await intervalsOf(context, program, optimize);
  ranks.forEach(({ device }) => device.pool.endStep());
  return {
    loss: losses / targets,
    wallMs,
    ...(intervals ? { intervals } : {}),
    ...(optimize && !overflow
      ? {
        gradientNorm: normOf(outputs.map(({ squares }) => squares), scale),
        learningRate: rate * context.learningRate,
        ...(clip === undefined ? {} : { clipped: outputs[0].verdict.clipped }),
      }
      : {}),
    ...(optimize
      ? { optimizerAfter: outputs.map((_, peer) => end.reduceFrom?.(placeOf(peer, context.size).number) ?? []) }
      : {}),
    ...(lossScale ? { lossScale: scale, skipped: overflow !== undefined } : {}),
    ...(overflow ? { overflow } : {}),
    ...(optimize && replicas > 1 ? { sums: outputs.map(({ sums = [] }) => sums) } : {}),
    peaks: outputs.map(({ peak }) => peak),
    ...(timeline ? { timeline: outputs.map((each) => each.timeline!) } : {}),
  };
}

/** Starts all ranks and waits for the last; where one fails, the step is undone. */
async function runRanks(
  context: Context,
  marks: Marks,
  fromZero: boolean,
  input: StepInput,
): Promise<{ outputs: readonly StepOutput[]; wallMs: number }> {
  const { ranks } = context;
  try {
    if (fromZero) ranks.forEach(clearGradients);
    return await runAll(context, input);
  } catch (error) {
    await undo(context, marks, error);
    throw error;
  }
}

/** Runs all ranks to their end, and throws where one has failed. What they give is by peer, of all processes. */
export async function runAll(
  context: Pick<Context, "ranks" | "world" | "condition">,
  input: StepInput,
): Promise<{ outputs: readonly StepOutput[]; wallMs: number }> {
  const { ranks, world, condition } = context;
  const start = performance.now();
  const outcomes = await Promise.allSettled(ranks.map((rank) => runRank(rank, input)));
  const wallMs = performance.now() - start;
  const outputs = outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
  if (ranks.length === world.size) return { outputs, wallMs };
  try {
    const all = await ofAllPeers(context, outputs.map((output) => ({ output, wallMs })));
    return { outputs: all.map(({ output }) => output), wallMs: Math.max(...all.map((each) => each.wallMs)) };
  } catch (error) {
    // The ranks here have made their update by now.
    if (input.optimize) condition.broken ??= reasonOf(error);
    throw error;
  }
}

/** A schedule and a batch, in what processes compare. */
export function callOf({ schedule }: Program, batch: Batch): string {
  const order = schedule.actions.map((list) => list.map(formatAction).join(" ")).join("; ");
  let hash = 0;
  for (let at = 0; at < order.length; at++) hash = Math.imul(hash, 31) + order.charCodeAt(at) >>> 0;
  return `${schedule.name} (${hash.toString(16).padStart(8, "0")}) on ${fingerprint(batch)}`;
}

/**
 * The batch, with copies of all that says where kernels read: what was checked is what they get, even if the caller draws the
 * next batch into the same arrays meanwhile. Floats, which are many and lead nowhere else, are not copied.
 */
export function withOwnIds(batch: Batch): Batch {
  return mapArrays(batch, (array) => array instanceof Uint32Array ? array.slice() as typeof array : array);
}

/** Shape of each stage's input for so many samples; last, that of the outputs. */
export function shapesOf({ model, stages }: Context, samples: number): (readonly number[])[] {
  const shapes = [model.inputShape(samples)];
  for (const stage of stages) shapes.push(stage.outputShape(shapes[shapes.length - 1]));
  return shapes;
}

/** Counts the update, which has been made: where an optimizer of the caller's own throws now, nothing takes that back. */
function commit({ ranks, condition }: Context): void {
  for (const rank of ranks) {
    try {
      rank.optimizers.forEach((optimizer) => optimizer.commit());
    } catch (error) {
      condition.broken ??= `${nameOf(rank)} failed while it counted its update: ${reasonOf(error)}`;
    }
  }
}

/** The times of a step that stands, by peer: nothing but the loss of a device can keep them from coming. */
export async function intervalsOf(context: Context, program: Program, optimize: boolean) {
  const { ranks, condition } = context;
  const own = await Promise.all(ranks.map(async (rank) => {
    const { timer, number } = rank, { length } = program.schedule.actions[number];
    if (!timer) return {};
    try {
      const intervals = await timer.read(length + (program.forwardOnly ? 0 : optimize ? 2 : 1));
      for (let at = 0; at < length; at++) {
        if (!isIdle(program, program.first[number] + at, rank)) continue;
        const { end } = intervals[at - 1]; // its I came before
        intervals[at] = { start: end, end };
      }
      return { intervals };
    } catch (error) {
      const { gpu } = rank.device;
      await gpu.settleLoss();
      return { problem: `${nameOf(rank)} (${gpu.info.name}): ${gpu.lost ?? reasonOf(error)}` };
    }
  }));
  const all: readonly { intervals?: readonly Interval[]; problem?: string }[] = await ofAllPeers(context, own);
  const problem = all.find((each) => each.problem !== undefined)?.problem;
  if (problem !== undefined) {
    condition.broken ??= `the times of the last step did not come: ${problem}`;
    return expectUsable(context);
  }
  return all.every(({ intervals }) => intervals) ? all.map(({ intervals }) => intervals!) : undefined;
}

/** An error that was reported after the step before had ended belongs to neither: nothing of this step has run. */
export function expectNoError(device: Device): void {
  try {
    device.check();
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    throw new RankError(`Before the step: ${error.message}`, { cause: error });
  }
}
