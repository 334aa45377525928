/** Runs a schedule: one asynchronous loop a rank over its actions, one submission an action. */
import { reasonOf, UserError } from "../errors.ts";
import { alignment, type Device, DeviceError } from "../gpu/device.ts";
import type { Bytes } from "../gpu/ledger.ts";
import { type LedgerPoint, recordLedger } from "../gpu/ledger_timeline.ts";
import type { WaitHistory } from "../gpu/poll.ts";
import type { Interval } from "../gpu/timing.ts";
import { expectFields, flag, optional, type Rules } from "../rules.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { empty, release, type Tensor, writeArray } from "../tensor.ts";
import { checkBatch } from "../train/check_batch.ts";
import type { Batch } from "../train/data.ts";
import { type ExecutorContext, expectUsable, lostGradients } from "./context.ts";
import { copyOf, planOf } from "./plan.ts";
import { promised } from "./promised.ts";
import type { Step } from "./run_action.ts";
import { RankError, runRank } from "./run_rank.ts";
import type { Stage } from "./stage.ts";
import { clearGradients, undo } from "./undo.ts";
import { createVerdict, type NotFinite } from "./verdict.ts";

/** What a step gave. */
export interface StepResult {
  /** Mean loss over the targets of the batch that count. */
  readonly loss: number;
  /** Wall-clock time from the first action to the moment when every device has finished. */
  readonly wallMs: number;
  /**
   * Device time of each rank's actions, in the order of its list; then that of the look for gradients that are not finite, and
   * last the optimizer's, if one ran. Absent where a device has no timestamps. Each rank's device has a clock of its own.
   */
  readonly intervals?: readonly (readonly Interval[])[];
  /** In mixed precision what the loss was multiplied by for the backward. */
  readonly lossScale?: number;
  /**
   * In mixed precision whether gradients overflowed: then the step has changed nothing but the loss scale, see `LossScale`. In f32
   * such a step fails.
   */
  readonly skipped?: boolean;
  /** Where gradients overflowed: the first such parameter of the lowest rank. */
  readonly overflow?: NotFinite;
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
  /**
   * Whether the optimizer updates the parameters at the end; yes by default. Without, the gradients stay to be read until the
   * next step. All else is as in training: dropout drops, and batch normalisation moves its running statistics.
   */
  readonly optimize?: boolean;
  /**
   * Whether the step's gradients are added to those that the steps before have left (without `optimize`), so that several steps
   * make one update: of the sum of their gradients, not the mean. No by default: the step starts from zero, and what was added up
   * so far is gone. So evaluate after an update, not between the steps of a sum.
   */
  readonly accumulate?: boolean;
  /** Whether to record what is in use over time, see {@link StepResult.timeline}. */
  readonly timeline?: boolean;
}

const rules: Rules<StepOptions> = { optimize: optional(flag), accumulate: optional(flag), timeline: optional(flag) };

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
  context: ExecutorContext,
  givenSchedule: Schedule,
  givenBatch: Batch,
  options: StepOptions = {},
): Promise<StepResult> {
  expectFields("step", options, rules);
  const { optimize = true, accumulate = false, timeline = false } = options;
  const { model, devices, stages, channels, lossGradient, lossScale, condition } = context;
  const schedule = copyOf(givenSchedule);
  const plan = planOf(schedule, devices.length, stages.map(({ device }) => devices.indexOf(device)));
  const targets = checkBatch(model, givenBatch, schedule.microbatches);
  const batch = withOwnIds(givenBatch);
  if (accumulate && condition.gradients === "lost") throw new UserError(lostGradients);
  devices.forEach(expectNoError);
  const marks = devices.map((device) => device.pool.mark());
  devices.forEach((device) => device.ledger.resetPeak());
  const recorders = timeline ? devices.map(({ ledger }) => recordLedger(ledger)) : undefined;
  const scale = lossScale?.value ?? 1;
  const loss = promised<number>();
  const verdict = createVerdict(devices.length);
  let losses: Tensor;
  let wallMs: number;
  let faults: readonly (string | undefined)[];
  try {
    if (condition.gradients !== "zero" && !accumulate) clearGradients(stages);
    losses = empty(stages[stages.length - 1].device, [schedule.microbatches, alignment / 4], "workspace");
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
      historyOf: waitsOf(givenSchedule),
    };
    writeArray(lossGradient, Float32Array.of(scale / targets));
    const start = performance.now();
    const outcomes = await Promise.allSettled(
      devices.map((_, rank) =>
        runRank(context, step, { schedule, rank, optimize, loss, targets, scale, verdict, recorder: recorders?.[rank] })
      ),
    );
    wallMs = performance.now() - start;
    faults = outcomes.map((outcome) => {
      if (outcome.status === "rejected") throw outcome.reason;
      return outcome.value;
    });
  } catch (error) {
    recorders?.forEach((recorder) => recorder.stop());
    await undo(context, marks, error);
    throw error;
  }
  // The step stands, or all ranks have left it out alike.
  const overflow = await verdict.result;
  if (optimize && !overflow) commit(context);
  if (!overflow) condition.gradients = optimize ? "zero" : "summed";
  else condition.gradients = accumulate && condition.gradients === "summed" ? "lost" : "zero";
  if (overflow || optimize) lossScale?.update(overflow !== undefined);
  release(losses);
  const timelines = recorders?.map((recorder) => recorder.stop());
  const peaks = devices.map(({ ledger }) => ({
    total: ledger.totalPeak(),
    categories: { ...ledger.peak },
    needed: ledger.neededPeak(),
    reserved: ledger.reservedPeak(),
  }));
  const fault = faults.findIndex((each) => each !== undefined);
  if (fault >= 0) condition.broken ??= `Rank ${fault} failed while it updated its parameters: ${faults[fault]}`;
  expectUsable(context);
  const intervals = await intervalsOf(context, schedule, optimize);
  devices.forEach(({ pool }) => pool.endStep());
  return {
    loss: await loss.promise,
    wallMs,
    ...(intervals ? { intervals } : {}),
    ...(lossScale ? { lossScale: scale, skipped: overflow !== undefined } : {}),
    ...(overflow ? { overflow } : {}),
    peaks,
    ...(timelines ? { timeline: timelines } : {}),
  };
}

/**
 * The batch, with copies of all that says where kernels read: what was checked is what they get, even if the caller draws the
 * next batch into the same arrays meanwhile. Pixels, which are many and lead nowhere else, are not copied.
 */
function withOwnIds({ samples, inputs, targets, lengths, seed }: Batch): Batch {
  return {
    samples,
    inputs: inputs instanceof Uint32Array ? new Uint32Array(inputs) : inputs,
    targets: new Uint32Array(targets),
    ...(lengths ? { lengths: new Uint32Array(lengths) } : {}),
    ...(seed === undefined ? {} : { seed }),
  };
}

/** Counts the update, which has been made: where an optimizer of the caller's own throws now, nothing takes that back. */
function commit({ optimizers, condition }: ExecutorContext): void {
  for (const [rank, own] of optimizers.entries()) {
    try {
      own.forEach((optimizer) => optimizer.commit());
    } catch (error) {
      condition.broken ??= `Rank ${rank} failed while it counted its update: ${reasonOf(error)}`;
    }
  }
}

/** The times of a step that stands: nothing but the loss of a device can keep them from coming. */
async function intervalsOf(context: ExecutorContext, { actions }: Schedule, optimize: boolean) {
  const { timers, condition } = context;
  if (!timers.every((timer) => timer)) return undefined;
  try {
    return await Promise.all(timers.map((timer, rank) => timer!.read(actions[rank].length + (optimize ? 2 : 1))));
  } catch (error) {
    condition.broken ??= `the times of the last step did not come: ${reasonOf(error)}`;
    return expectUsable(context);
  }
}

/** An error that was reported after the step before had ended belongs to neither: nothing of this step has run. */
function expectNoError(device: Device): void {
  try {
    device.check();
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    throw new RankError(`Before the step: ${error.message}`, { cause: error });
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

function shapesOf(stages: readonly Stage[], inputShape: readonly number[]): (readonly number[])[] {
  const shapes = [inputShape];
  for (const { layer } of stages) shapes.push(layer.outputShape(shapes[shapes.length - 1]));
  return shapes;
}
