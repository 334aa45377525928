/** Runs a schedule: one asynchronous loop a rank over its actions, one submission an action. */
import { alignment, type Device } from "../gpu/device.ts";
import type { Bytes } from "../gpu/ledger.ts";
import type { Interval, Timer } from "../gpu/timing.ts";
import type { Model } from "../models/model.ts";
import { formatAction, type Schedule } from "../schedules/actions.ts";
import { empty, release, toArray } from "../tensor.ts";
import { type Batch, checkBatch, countTargets } from "../train/data.ts";
import type { Optimizer } from "../train/optimizers.ts";
import type { Channels } from "./channel.ts";
import { planOf } from "./plan.ts";
import { type Promised, promised } from "./promised.ts";
import { runAction, type Step } from "./run_action.ts";
import type { Stage } from "./stage.ts";
import { exchangeTied } from "./tied.ts";

/** What a step gave. */
export interface StepResult {
  /** Mean loss over the targets of the batch that count. */
  readonly loss: number;
  /** Wall-clock time from the first action to the moment when every device has finished. */
  readonly wallMs: number;
  /**
   * Device time of each rank's actions, in the order of its list, the optimizer's as one more at the end; absent where a
   * device has no timestamps. Each rank's device has a clock of its own.
   */
  readonly intervals?: readonly (readonly Interval[])[];
  /** The most bytes in use at once on each rank, and of each category by itself. */
  readonly peaks: readonly { readonly total: number; readonly categories: Bytes }[];
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
  { optimize = true }: { optimize?: boolean } = {},
): Promise<StepResult> {
  const { model, devices, stages, timers, channels } = context;
  const plan = planOf(schedule, devices.length, stages.length);
  checkBatch(batch, schedule.microbatches);
  const marks = devices.map((device) => device.pool.mark());
  devices.forEach((device) => device.ledger.resetPeak());
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
      lossScale: 1 / countTargets(batch),
      saved: new Map(),
      groups: new Map(),
      handed: new Map(),
    };
    const start = performance.now();
    const loss = promised<number>();
    const outcomes = await Promise.allSettled(
      devices.map((_, rank) => runRank(context, step, schedule, rank, optimize, loss)),
    );
    const wallMs = performance.now() - start;
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed) throw failed.reason;
    release(losses);
    const intervals = timers.every((timer) => timer)
      ? await Promise.all(timers.map((timer, rank) => timer!.read(schedule.actions[rank].length + (optimize ? 1 : 0))))
      : undefined;
    const peaks = devices.map(({ ledger }) => ({ total: ledger.totalPeak(), categories: { ...ledger.peak } }));
    return { loss: await loss.promise, wallMs, ...(intervals ? { intervals } : {}), peaks };
  } catch (error) {
    channels.reset();
    devices.forEach((device, rank) => {
      device.abandon();
      device.pool.rollback(marks[rank]);
    });
    throw error;
  }
}

async function runRank(
  { model, devices, optimizers, timers, channels }: ExecutorContext,
  step: Step,
  schedule: Schedule,
  rank: number,
  optimize: boolean,
  loss: Promised<number>,
): Promise<void> {
  const device = devices[rank];
  const actions = schedule.actions[rank];
  const lastStage = step.stages.length - 1;
  let losses = 0;
  let current = "start";
  try {
    for (const [index, action] of actions.entries()) {
      current = formatAction(action);
      await runAction(step, device, action, () => device.beginPass(timers[rank]?.slot(index)));
      if (action.kind === "F" && action.stage === lastStage && ++losses === step.microbatches) {
        // Read while the backward goes on: it is long known when the optimizers ask for it.
        toArray(step.losses).then((values) => loss.resolve(meanLoss(values, schedule, rank))).catch(loss.reject);
      }
    }
    if (optimize) {
      current = "optimizer";
      await loss.promise; // no parameter changes in a step whose loss is not a number
      await exchangeTied(model, channels, device);
      optimizers[rank].forEach((optimizer) => optimizer.prepare());
      device.beginPass(timers[rank]?.slot(actions.length));
      optimizers[rank].forEach((optimizer) => optimizer.step());
    }
    await device.idle();
  } catch (error) {
    const explained = error instanceof RankError
      ? error // another rank failed first, and this one waited for it
      : new RankError(`Rank ${rank} failed at ${current}: ${(error as Error).message}`, { cause: error });
    channels.fail(explained);
    loss.reject(explained);
    throw explained;
  }
}

class RankError extends Error {
  override name = "RankError";
}

function shapesOf(stages: readonly Stage[], inputShape: readonly number[]): (readonly number[])[] {
  const shapes = [inputShape];
  for (const { layer } of stages) shapes.push(layer.outputShape(shapes[shapes.length - 1]));
  return shapes;
}

/** The sum of the micro-batches' shares of the batch's mean. */
function meanLoss(losses: Float32Array, { microbatches, stages }: Schedule, rank: number): number {
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
