/** Runs a schedule: one asynchronous loop a rank over its actions, one submission an action. */
import { alignment, type Device, DeviceError } from "../gpu/device.ts";
import type { Bytes } from "../gpu/ledger.ts";
import { type LedgerPoint, type LedgerRecorder, recordLedger } from "../gpu/ledger_timeline.ts";
import type { WaitHistory } from "../gpu/poll.ts";
import type { Interval, Timer } from "../gpu/timing.ts";
import type { Model } from "../models/model.ts";
import { fill } from "../ops/elementwise.ts";
import { formatAction, type Schedule } from "../schedules/actions.ts";
import { empty, release, type Tensor, toArray, writeArray } from "../tensor.ts";
import { checkBatch } from "../train/check_batch.ts";
import type { Batch } from "../train/data.ts";
import type { LossScale } from "../train/loss_scale.ts";
import type { Optimizer } from "../train/optimizers.ts";
import type { Channels } from "./channel.ts";
import { planOf } from "./plan.ts";
import { type Promised, promised } from "./promised.ts";
import { runAction, type Step } from "./run_action.ts";
import type { Stage } from "./stage.ts";
import { sendTied } from "./tied.ts";
import { createVote, overflows, type Vote } from "./overflow.ts";

/** What a step gave. */
export interface StepResult {
  /** Mean loss over the targets of the batch that count. */
  readonly loss: number;
  /** Wall-clock time from the first action to the moment when every device has finished. */
  readonly wallMs: number;
  /**
   * Device time of each rank's actions, in the order of its list, the optimizer's as one more at the end; absent where a
   * device has no timestamps. The look for overflow before that, in mixed precision, is in none of them. Each rank's
   * device has a clock of its own.
   */
  readonly intervals?: readonly (readonly Interval[])[];
  /** In mixed precision what the loss was multiplied by for the backward. */
  readonly lossScale?: number;
  /** In mixed precision whether gradients overflowed, and with them the update was left out; see `LossScale`. */
  readonly skipped?: boolean;
  /** The most bytes in use at once on each rank, and of each category by itself. */
  readonly peaks: readonly RankPeak[];
  /** Of each rank every change of what is in use, if the step was asked for it; see `actionsOf`. */
  readonly timeline?: readonly (readonly LedgerPoint[])[];
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

/** What a step may be told. */
export interface StepOptions {
  /** Whether the optimizer updates the parameters at the end; yes by default. */
  readonly optimize?: boolean;
  /** Whether to record what is in use over time, see {@link StepResult.timeline}. */
  readonly timeline?: boolean;
}

/** What the executor works on; made by `createPipeline`. */
export interface ExecutorContext {
  readonly model: Model;
  readonly devices: readonly Device[];
  readonly stages: readonly Stage[];
  /** Of each rank. */
  readonly optimizers: readonly (readonly Optimizer[])[];
  readonly timers: readonly (Timer | undefined)[];
  readonly channels: Channels;
  /**
   * [1], on the last stage's device, written anew in each step: one over the batch's targets that count, since the loss is the mean
   * over the batch whichever micro-batch a row is in, times the loss scale.
   */
  readonly lossGradient: Tensor;
  /** In mixed precision; none in f32. */
  readonly lossScale?: LossScale;
}

/**
 * Runs one step of `schedule` on `batch`. Without `optimize` the gradients stay, and add up with those of the next step.
 *
 * @throws {UserError} When schedule, batch and pipeline do not fit each other; nothing has run then.
 * @throws {Error} When a rank fails or the loss is not finite; rank and action are named, and the memory of the step is
 * given back.
 */
export async function runStep(
  context: ExecutorContext,
  schedule: Schedule,
  batch: Batch,
  { optimize = true, timeline = false }: StepOptions = {},
): Promise<StepResult> {
  const { model, devices, stages, timers, channels, lossGradient, lossScale } = context;
  const plan = planOf(schedule, devices.length, stages.length);
  const targets = checkBatch(model, batch, schedule.microbatches);
  const marks = devices.map((device) => device.pool.mark());
  devices.forEach((device) => device.ledger.resetPeak());
  const recorders = timeline ? devices.map(({ ledger }) => recordLedger(ledger)) : undefined;
  try {
    const { device: lossDevice } = stages[stages.length - 1];
    const losses = empty(lossDevice, [schedule.microbatches, alignment / 4], "workspace");
    const step: Step = {
      model,
      stages,
      channels,
      plan,
      batch,
      microbatches: schedule.microbatches,
      shapes: shapesOf(stages, model.inputShape(batch.samples / schedule.microbatches)),
      losses,
      lossGradient,
      saved: new Map(),
      groups: new Map(),
      handed: new Map(),
      historyOf: waitsOf(schedule),
    };
    const scale = lossScale?.value ?? 1;
    writeArray(lossGradient, Float32Array.of(scale / targets));
    const start = performance.now();
    const loss = promised<number>();
    const vote = lossScale && optimize ? createVote(devices.length) : undefined;
    const outcomes = await Promise.allSettled(
      devices.map((_, rank) =>
        runRank(context, step, { schedule, rank, optimize, loss, targets, scale, vote, recorder: recorders?.[rank] })
      ),
    );
    const wallMs = performance.now() - start;
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed) throw failed.reason;
    release(losses);
    const intervals = timers.every((timer) => timer)
      ? await Promise.all(timers.map((timer, rank) => timer!.read(schedule.actions[rank].length + (optimize ? 1 : 0))))
      : undefined;
    const peaks = devices.map(({ ledger }) => ({
      total: ledger.totalPeak(),
      categories: { ...ledger.peak },
      needed: ledger.neededPeak(),
      reserved: ledger.reservedPeak(),
    }));
    const skipped = await vote?.result;
    if (skipped !== undefined) lossScale!.update(skipped);
    devices.forEach(({ pool }) => pool.endStep());
    return {
      loss: await loss.promise,
      wallMs,
      ...(intervals ? { intervals } : {}),
      ...(lossScale ? { lossScale: scale, skipped: skipped ?? false } : {}),
      peaks,
      ...(recorders ? { timeline: recorders.map((recorder) => recorder.stop()) } : {}),
    };
  } catch (error) {
    channels.reset();
    devices.forEach((device, rank) => {
      device.abandon();
      device.pool.rollback(marks[rank]);
      // What a step needed that did not fit is nothing to keep for the next.
      device.pool.trim();
      recorders?.[rank].stop();
    });
    await Promise.all(devices.map((device) => device.settle()));
    throw error;
  }
}

/** What one rank is told, besides what all share. */
interface RankRun {
  schedule: Schedule;
  rank: number;
  optimize: boolean;
  /** Where the last stage's rank leaves the loss. */
  loss: Promised<number>;
  /** Those of the batch that count. */
  targets: number;
  /** Of the loss, see `LossScale`; 1 in f32. */
  scale: number;
  vote: Vote | undefined;
  recorder: LedgerRecorder | undefined;
}

async function runRank(
  { model, devices, stages, optimizers, timers, channels }: ExecutorContext,
  step: Step,
  { schedule, rank, optimize, loss, targets, scale, vote, recorder }: RankRun,
): Promise<void> {
  const device = devices[rank];
  const actions = schedule.actions[rank];
  const lastStage = step.stages.length - 1;
  let losses = 0;
  let current = "start";
  const begin = (name: string) => {
    device.activity = current = name;
    recorder?.begin(name);
  };
  /** Adds up what belongs together, and updates the parameters; recorded before the wait, like an action. */
  const update = async () => {
    const tied = sendTied(model, channels, device, step.historyOf);
    let skip = false;
    const gradients = stages.filter((stage) => stage.device === device).flatMap(({ blocks }) =>
      blocks.map((block) => block.gradients)
    );
    if (vote) { // overflow is looked for in the sums
      tied.record();
      await tied.submit(device.finish());
      skip = await vote.cast(await overflows(device, gradients));
    }
    if (!skip) optimizers[rank].forEach((optimizer) => optimizer.prepare(undefined, scale));
    if (!vote) tied.record();
    device.beginPass(timers[rank]?.slot(actions.length));
    if (skip) gradients.forEach((gradient) => fill(gradient, 0));
    else optimizers[rank].forEach((optimizer) => optimizer.step());
    const commands = device.finish();
    if (vote) device.submit(commands);
    else await tied.submit(commands);
  };
  try {
    for (const [index, action] of actions.entries()) {
      begin(formatAction(action));
      await runAction(step, device, action, () => device.beginPass(timers[rank]?.slot(index)));
      if (action.kind === "F" && action.stage === lastStage && ++losses === step.microbatches) {
        // Read while the backward goes on: it is long known when the optimizers ask for it.
        toArray(step.losses).then((values) => loss.resolve(sumOfLosses(values, schedule, rank) / targets)).catch(
          loss.reject,
        );
      }
    }
    if (optimize) {
      begin("optimizer");
      await loss.promise; // no parameter changes in a step whose loss is not a number
      await update();
    }
    await device.idle(step.historyOf(`end ${rank}`));
  } catch (error) {
    const [failed, at] = error instanceof DeviceError ? [error.rank, error.activity] : [rank, current];
    const explained = error instanceof RankError
      ? error // another rank failed first, and this one waited for it
      : new RankError(`Rank ${failed} failed at ${at}: ${(error as Error).message}`, { cause: error });
    channels.fail(explained);
    loss.reject(explained);
    vote?.fail(explained);
    throw explained;
  }
}

/** Of the schedules that were run, by the name of the wait. */
const waits = new WeakMap<Schedule, Map<string, WaitHistory>>();

function waitsOf(schedule: Schedule): (name: string) => WaitHistory {
  const known = waits.get(schedule) ?? new Map<string, WaitHistory>();
  waits.set(schedule, known);
  return (name) => {
    const history = known.get(name) ?? [];
    known.set(name, history);
    return history;
  };
}

class RankError extends Error {
  override name = "RankError";
}

function shapesOf(stages: readonly Stage[], inputShape: readonly number[]): (readonly number[])[] {
  const shapes = [inputShape];
  for (const { layer } of stages) shapes.push(layer.outputShape(shapes[shapes.length - 1]));
  return shapes;
}

/** The sum over the micro-batches. */
function sumOfLosses(losses: Float32Array, { microbatches, stages }: Schedule, rank: number): number {
  let sum = 0;
  for (let microbatch = 0; microbatch < microbatches; microbatch++) {
    const loss = losses[microbatch * alignment / 4];
    if (!Number.isFinite(loss)) {
      throw new RankError(`Rank ${rank} failed at ${stages - 1}F${microbatch}: the loss of the micro-batch is ${loss}`);
    }
    sum += loss;
  }
  return sum;
}
