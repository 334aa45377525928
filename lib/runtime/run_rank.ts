/** One rank's part in a step: its actions one after another, and the end, at which all ranks update or none. */
import { reasonOf } from "../errors.ts";
import { alignment, DeviceError } from "../gpu/device.ts";
import type { LedgerRecorder } from "../gpu/ledger_timeline.ts";
import { keepBuffers, restoreBuffers } from "../layers/buffers.ts";
import { formatAction, type Schedule } from "../schedules/schedule.ts";
import { toArray } from "../tensor.ts";
import type { ExecutorContext } from "./context.ts";
import type { Promised } from "./promised.ts";
import { runAction, type Step } from "./run_action.ts";
import { sendTied } from "./tied.ts";
import { clearGradients } from "./undo.ts";
import { lookAt, type Verdict } from "./verdict.ts";

/** What one rank is told, besides what all share. */
export interface RankRun {
  readonly schedule: Schedule;
  readonly rank: number;
  readonly optimize: boolean;
  /** Where the last stage's rank leaves the loss. */
  readonly loss: Promised<number>;
  /** Those of the batch that count. */
  readonly targets: number;
  /** Of the loss, see `LossScale`; 1 in f32. */
  readonly scale: number;
  readonly verdict: Verdict;
  readonly recorder: LedgerRecorder | undefined;
}

/** A failed rank, named in the message; a rank that waited for it fails with the same error. */
export class RankError extends Error {
  override name = "RankError";
}

/**
 * Runs the rank's actions and its end of the step. What it returns is what went wrong in the update, when it was too late for
 * this step to be undone.
 *
 * @throws {RankError} When this rank or another fails before that: nothing has been updated then, on any rank.
 */
export async function runRank(
  { model, devices, stages, optimizers, timers, channels, lossScale }: ExecutorContext,
  step: Step,
  { schedule, rank, optimize, loss, targets, scale, verdict, recorder }: RankRun,
): Promise<string | undefined> {
  const device = devices[rank];
  const actions = schedule.actions[rank];
  const lastStage = step.stages.length - 1;
  const own = stages.filter((stage) => stage.device === device);
  let losses = 0;
  let current = "start";
  const begin = (name: string) => {
    device.activity = current = name;
    recorder?.begin(name);
  };

  /** Adds up what belongs together, looks at it, and waits for what the others have found. */
  async function judge() {
    const blocks = own.flatMap(({ placed }) => placed.blocks);
    const tied = optimize ? sendTied(model, stages, channels, device, step.historyOf) : undefined;
    tied?.record();
    device.beginPass(timers[rank]?.slot(actions.length));
    const read = lookAt(device, blocks, step.historyOf(`look ${rank}`));
    const commands = device.finish();
    if (tied) await tied.submit(commands);
    else device.submit(commands);
    // Recorded while the others are still at work: the update starts as soon as all have answered.
    const update = optimize ? recordUpdate() : recordKept();
    const found = await verdict.cast(await read());
    await loss.promise; // no step stands whose loss is not a number
    if (found && !lossScale?.canShrink) {
      const scaled = lossScale
        ? `, although the loss is scaled by no more than ${scale}: the training has diverged`
        : "";
      throw new RankError(
        `Rank ${found.rank} failed at ${current}: the gradient of "${found.parameter}" is not finite${scaled}`,
      );
    }
    if (!found) return update;
    device.discard(update);
    return recordSkipped();
  }

  function recordUpdate() {
    optimizers[rank].forEach((optimizer) => optimizer.prepare(undefined, scale));
    device.beginPass(timers[rank]?.slot(actions.length + 1));
    optimizers[rank].forEach((optimizer) => optimizer.step());
    return recordKept();
  }

  function recordKept() {
    for (const { placed: { buffers } } of own) if (buffers) keepBuffers(buffers);
    return device.finish();
  }

  function recordSkipped() {
    device.beginPass(optimize ? timers[rank]?.slot(actions.length + 1) : undefined);
    clearGradients(own);
    for (const { placed: { buffers } } of own) if (buffers) restoreBuffers(buffers);
    return device.finish();
  }

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
    begin(optimize ? "optimizer" : "gradients");
    const commands = await judge();
    // All ranks have got here. From now on nothing can fail but the submission itself, and the device.
    return await device.commit(commands, step.historyOf(`end ${rank}`));
  } catch (error) {
    const [failed, at] = error instanceof DeviceError ? [error.rank, error.activity] : [rank, current];
    const explained = error instanceof RankError
      ? error // another rank failed first, and this one waited for it
      : new RankError(`Rank ${failed} failed at ${at}: ${reasonOf(error)}`, { cause: error });
    channels.fail(explained);
    loss.reject(explained);
    verdict.fail(explained);
    throw explained;
  }
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
