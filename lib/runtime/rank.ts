/** One rank's part in a step. Of the other ranks it knows the numbers alone. */
import { reasonOf } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { DeviceError } from "../gpu/device_error.ts";
import { type LedgerPoint, recordLedger } from "../gpu/ledger_timeline.ts";
import { fromHalf } from "../half.ts";
import { alignment, type Bytes } from "../memory.ts";
import { formatAction } from "../schedules/schedule.ts";
import { empty, release, writeArray } from "../tensor.ts";
import { microbatchOf } from "../train/data.ts";
import { runAction } from "./action.ts";
import { finish, finishEvaluation, type Verdict } from "./finish.ts";
import type { Rank, Run, StepInput } from "./run.ts";
import { beginPiece } from "./sequence.ts";
import { gatherParameters, isSharded } from "./sharded.ts";
import type { SumTime } from "./replica_sums.ts";
import { beginStageSum, endsOf } from "./stage_sums.ts";
import { RankError } from "./transport.ts";
import { nameOf } from "./world.ts";

/** What a rank gives back: plain data too. */
export interface StepOutput {
  /** What all have agreed on, the same on every rank. */
  readonly verdict: Verdict;
  /**
   * The sum of the squares of its gradients, those of tied parameters where the original is, times that of the loss scale; 0 where another
   * replica counts them.
   */
  readonly squares: number;
  /** When its gradients were added up over replicas, in a step with an update and several of them. */
  readonly sums?: readonly SumTime[];
  /** What went wrong in the update, when it was too late for the step to be undone. */
  readonly fault?: string;
  /** The most bytes at once. */
  readonly peak: RankPeak;
  /** Every change of what is in use, where that was asked for. */
  readonly timeline?: readonly LedgerPoint[];
  /** Where the last stage is and they were asked for, the outputs of all micro-batches, in order. */
  readonly outputs?: Float32Array;
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

/**
 * Runs the rank's actions one after the other, and its end of the step.
 *
 * @throws {RankError} When this rank or another fails before any parameter is updated: none is then, on any rank.
 */
export async function runRank(rank: Rank, input: StepInput): Promise<StepOutput> {
  const { number, device, transport } = rank;
  const { program, optimize, piece } = input;
  const { ledger } = device;
  let current = "start", run: Run | undefined;
  device.place = nameOf(rank);
  ledger.resetPeak();
  const recorder = input.timeline ? recordLedger(ledger) : undefined;
  const begin = (name: string) => {
    device.activity = current = name;
    recorder?.begin(name);
  };
  try {
    run = startRun(rank, input);
    const ends = optimize ? endsOf(program, rank) : undefined;
    // A sequence goes through one replica; the others learn how it went.
    const actions = piece && rank.replica > 0 ? [] : program.schedule.actions[number];
    for (const [index, action] of actions.entries()) {
      begin(formatAction(action));
      const node = program.first[number] + index;
      await runAction(run, node);
      const stage = ends?.get(node);
      if (stage === undefined) continue;
      begin(`sum ${stage}`);
      beginStageSum(run, stage);
    }
    begin(program.forwardOnly ? "loss" : optimize ? "optimizer" : "gradients");
    const { commands, verdict, squares, sums } = program.forwardOnly ? await finishEvaluation(run) : await finish(run);
    const outputs = run.outputsRead.size > 0 ? await outputsOf(run) : undefined;
    // All ranks have got here. From now on nothing can fail but the submission itself, and the device.
    const ended = device.commit(commands, `end of rank ${number}`), read = squares();
    read.catch(() => {}); // where the end has failed it may not come
    const gathered = optimize && !verdict.found && isSharded(rank) ? gatherParameters(rank) : undefined;
    gathered?.catch(() => {}); // what comes first is told
    let fault = await ended;
    if (gathered) {
      fault ??= await gathered.then((commands) => device.commit(commands), reasonOf);
      // Others may wait for its parameters.
      if (fault !== undefined) transport.fail(new RankError(`${nameOf(rank)} failed at ${current}: ${fault}`));
    }
    release(run.losses);
    return {
      verdict,
      squares: fault === undefined ? await read : NaN,
      ...(sums ? { sums } : {}),
      fault,
      peak: peakOf(device),
      timeline: recorder?.stop(),
      outputs,
    };
  } catch (error) {
    recorder?.stop();
    run?.sums.forEach(({ sums }) => sums.callOff());
    const [failed, at] = error instanceof DeviceError ? [error.place, error.activity] : [nameOf(rank), current];
    const explained = error instanceof RankError
      ? error // another rank failed first, and this one waited for it
      : new RankError(`${failed} failed at ${at}: ${reasonOf(error)}`, { cause: error });
    transport.fail(explained);
    throw explained;
  }
}

function startRun(rank: Rank, input: StepInput): Run {
  const { device, lossGradient, replica, replicas: { length } } = rank;
  const { program: { microbatches }, targets, lossScale, share = 1, piece } = input;
  const batch = piece ? input.batch : microbatchOf(input.batch, replica, length);
  device.routine = input.program;
  if (lossGradient && !input.program.forwardOnly) {
    writeArray(lossGradient, Float32Array.of((lossScale?.value ?? 1) * share / targets));
  }
  if (piece && replica === 0) beginPiece(rank, piece);
  const losses = lossGradient && !piece ? empty(device, [microbatches, alignment / 4], "workspace") : undefined;
  return {
    ...input,
    rank,
    batch,
    firstSample: replica * batch.samples,
    start: performance.now(),
    sums: [],
    losses,
    forwards: 0,
    saved: new Map(),
    groups: new Map(),
    handed: new Map(),
    outputsRead: new Map(),
  };
}

/** The outputs of all micro-batches, one after another. */
async function outputsOf({ outputsRead, rank: { dtype } }: Run): Promise<Float32Array> {
  const parts: Float32Array[] = [];
  for (const [, read] of [...outputsRead].sort(([one], [other]) => one - other)) {
    const bytes = await read;
    parts.push(dtype === "f16" ? fromHalf(new Uint16Array(bytes)) : new Float32Array(bytes));
  }
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function peakOf({ ledger }: Device): RankPeak {
  return {
    total: ledger.totalPeak(),
    categories: { ...ledger.peak },
    needed: ledger.neededPeak(),
    reserved: ledger.reservedPeak(),
  };
}
