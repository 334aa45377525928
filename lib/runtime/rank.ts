/** One rank of a pipeline: what it has, and its part in a step. Of the other ranks it knows the numbers alone. */
import { reasonOf } from "../errors.ts";
import { alignment, type Device, DeviceError } from "../gpu/device.ts";
import type { Bytes } from "../gpu/ledger.ts";
import { type LedgerPoint, recordLedger } from "../gpu/ledger_timeline.ts";
import type { Timer } from "../gpu/timing.ts";
import type { Group, Saved } from "../layers/saved.ts";
import type { Model } from "../models/model.ts";
import type { Program } from "../schedules/program.ts";
import { formatAction } from "../schedules/schedule.ts";
import { empty, release, type Tensor, writeArray } from "../tensor.ts";
import type { Batch } from "../train/data.ts";
import type { Optimizer } from "../train/optimizers.ts";
import { runAction } from "./action.ts";
import { finish, type Verdict } from "./finish.ts";
import type { PlacedStage } from "./placed.ts";
import type { Tie } from "./ties.ts";
import { RankError, type Transport } from "./transport.ts";

/** A rank. */
export interface Rank {
  readonly number: number;
  readonly device: Device;
  readonly model: Model;
  /** Element type of activations and their gradients, and so of messages. */
  readonly dtype: "f32" | "f16";
  /** The stages that are placed here, by their numbers, in order. */
  readonly stages: ReadonlyMap<number, PlacedStage>;
  /** The tied parameters of the whole model. */
  readonly ties: readonly Tie[];
  readonly optimizers: readonly Optimizer[];
  readonly timer: Timer | undefined;
  readonly transport: Transport;
  /**
   * [1], where the last stage is, written anew in each step: one over the batch's targets that count, since the loss is the mean
   * over the batch whichever micro-batch a row is in, times the loss scale.
   */
  readonly lossGradient: Tensor | undefined;
}

/** What every rank is given of a step: plain data, which could come from another process. */
export interface StepInput {
  readonly program: Program;
  readonly batch: Batch;
  /** Shape of each stage's input for one micro-batch; last, that of the logits. */
  readonly shapes: readonly (readonly number[])[];
  /** Those of the batch that count. */
  readonly targets: number;
  readonly optimize: boolean;
  readonly timeline: boolean;
  /** What the loss is multiplied by in mixed precision, and whether a smaller factor may help where gradients overflow. */
  readonly lossScale?: { readonly value: number; readonly canShrink: boolean };
}

/** What a rank gives back: plain data too. */
export interface StepOutput {
  /** What all have agreed on, the same on every rank. */
  readonly verdict: Verdict;
  /** What went wrong in the update, when it was too late for the step to be undone. */
  readonly fault?: string;
  readonly peak: RankPeak;
  readonly timeline?: readonly LedgerPoint[];
}

/** The most bytes at once on one rank. */
export interface RankPeak {
  /** In use, all categories together. */
  readonly total: number;
  /** In use, each category at its own worst moment. */
  readonly categories: Bytes;
  /** In use, or free and part of an action under way: the least budget that the step runs with. */
  readonly needed: number;
  /** Of all buffers: in use, and free ones kept for later. */
  readonly reserved: number;
}

/** A step under way on a rank. */
export interface Run extends StepInput {
  readonly rank: Rank;
  /**
   * Where the last stage is: one row for each micro-batch, as wide as a view's alignment; the sum of its rows' losses stands in the
   * first column.
   */
  readonly losses: Tensor | undefined;
  /** Forwards of the last stage that are recorded. */
  forwards: number;
  /** The sum of the losses, once all are on their way to the host. */
  lossSum?: Promise<number>;
  /** What each micro-batch in flight keeps, by `stage * microbatches + microbatch`. */
  readonly saved: Map<number, Saved>;
  /** Groups in flight, by the W or B that ends them. */
  readonly groups: Map<number, Group>;
  /** Tensors on their way between two stages of this rank, by edge. */
  readonly handed: Map<number, Tensor>;
}

/**
 * Runs the rank's actions one after the other, and its end of the step.
 *
 * @throws {RankError} When this rank or another fails before any parameter is updated: none is then, on any rank.
 */
export async function runRank(rank: Rank, input: StepInput): Promise<StepOutput> {
  const { number, device, transport } = rank;
  const { program, optimize } = input;
  const { ledger } = device;
  let current = "start";
  ledger.resetPeak();
  const recorder = input.timeline ? recordLedger(ledger) : undefined;
  const begin = (name: string) => {
    device.activity = current = name;
    recorder?.begin(name);
  };
  try {
    const run = startRun(rank, input);
    for (const [index, action] of program.schedule.actions[number].entries()) {
      begin(formatAction(action));
      await runAction(run, program.first[number] + index);
    }
    begin(optimize ? "optimizer" : "gradients");
    const { commands, verdict } = await finish(run);
    // All ranks have got here. From now on nothing can fail but the submission itself, and the device.
    const fault = await device.commit(commands, "end");
    release(run.losses);
    return { verdict, fault, peak: peakOf(device), timeline: recorder?.stop() };
  } catch (error) {
    recorder?.stop();
    const [failed, at] = error instanceof DeviceError ? [error.rank, error.activity] : [number, current];
    const explained = error instanceof RankError
      ? error // another rank failed first, and this one waited for it
      : new RankError(`Rank ${failed} failed at ${at}: ${reasonOf(error)}`, { cause: error });
    transport.fail(explained);
    throw explained;
  }
}

function startRun(rank: Rank, input: StepInput): Run {
  const { device, lossGradient } = rank;
  const { program: { microbatches }, targets, lossScale } = input;
  device.routine = input.program;
  if (lossGradient) writeArray(lossGradient, Float32Array.of((lossScale?.value ?? 1) / targets));
  const losses = lossGradient && empty(device, [microbatches, alignment / 4], "workspace");
  return { ...input, rank, losses, forwards: 0, saved: new Map(), groups: new Map(), handed: new Map() };
}

function peakOf({ ledger }: Device): RankPeak {
  return {
    total: ledger.totalPeak(),
    categories: { ...ledger.peak },
    needed: ledger.neededPeak(),
    reserved: ledger.reservedPeak(),
  };
}

/** Gives back everything the rank holds on its device. */
export function releaseRank({ optimizers, timer, transport, lossGradient, stages, device }: Rank): void {
  optimizers.forEach((optimizer) => optimizer.release());
  timer?.close();
  transport.close();
  release(lossGradient);
  for (const stage of stages.values()) stage.release();
  device.pool.limitTo(undefined);
  device.releaseCaches();
}
