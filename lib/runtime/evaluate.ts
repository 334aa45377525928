/** An evaluation: the forward passes of a step alone, which leave everything as it was. */
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import type { Interval } from "../gpu/timing.ts";
import { expectFields, flag, optional, type Rules } from "../rules.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { checkBatch } from "../train/check_batch.ts";
import type { Batch } from "../train/data.ts";
import { type Context, expectUsable, replicasOf } from "./context.ts";
import { expectAlike, nameOfPeer } from "./elsewhere.ts";
import type { RankPeak } from "./rank.ts";
import { callOf, expectNoError, intervalsOf, runAll, shapesOf, withOwnIds } from "./step.ts";
import { undoEvaluation } from "./undo.ts";

/** What an evaluation gave. */
export interface EvaluationResult {
  /** Mean loss over the targets of the batch that count. */
  readonly loss: number;
  /** How many targets count: the weight of this loss in a mean over several batches. */
  readonly targets: number;
  /** The outputs of the model's last layer, if asked for, sample after sample: logits [rows, classes] of a language model. */
  readonly outputs?: Float32Array;
  /** Shape of {@link EvaluationResult.outputs}. */
  readonly outputShape: readonly number[];
  /** Wall-clock time from the first action to the moment when every device has finished. */
  readonly wallMs: number;
  /**
   * Device time of each rank's forward passes, in the order of its list; of several replicas those of the first rank by rank, then of the next.
   * Absent where a device has no timestamps.
   */
  readonly intervals?: readonly (readonly Interval[])[];
  /** The most bytes in use at once on each rank, and of each category by itself. */
  readonly peaks: readonly RankPeak[];
  /** Of each rank every change of what is in use, if asked for. */
  readonly timeline?: readonly (readonly LedgerPoint[])[];
}

/** What an evaluation may be told. */
export interface EvaluateOptions {
  /** Whether to read the model's outputs, in f32 whatever the precision: as large as they are. No by default. */
  readonly outputs?: boolean;
  /** Whether to record what is in use over time, see {@link EvaluationResult.timeline}. */
  readonly timeline?: boolean;
}

const rules: Rules<EvaluateOptions> = { outputs: optional(flag), timeline: optional(flag) };

/**
 * Runs the forward passes of `schedule` on `batch`. Parameters, gradients, moments, running statistics and the loss scale are not
 * touched, whether it ends well or fails.
 *
 * @throws {UserError} When schedule, batch and pipeline do not fit each other; nothing has run then.
 * @throws {Error} When a rank fails, or the loss is not finite; rank and action are named.
 */
export async function runEvaluation(
  context: Context,
  schedule: Schedule,
  batch: Batch,
  options: EvaluateOptions = {},
): Promise<EvaluationResult> {
  expectFields("evaluate", options, rules);
  const { outputs: wanted = false, timeline = false } = options;
  const { model, ranks } = context;
  const program = context.forwardProgramOf(schedule);
  const targets = checkBatch(model, batch, program.microbatches, replicasOf(context));
  ranks.forEach(({ device }) => expectNoError(device));
  const own = withOwnIds(batch); // before anything is waited for
  await expectAlike(context, () => `an evaluation of ${callOf(program, own)} with ${JSON.stringify(options)}`);
  // What is recorded belongs to what came before, and must not be lost with an evaluation that fails.
  ranks.forEach(({ device }) => device.submit());
  const marks = ranks.map(({ device }) => device.pool.mark());
  const shapes = shapesOf(context, own.samples / (program.microbatches * replicasOf(context)));
  const input = { program, batch: own, shapes, targets, optimize: false, timeline, outputs: wanted };
  let ended: Awaited<ReturnType<typeof runAll>>;
  try {
    ended = await runAll(context, input);
    const at = ended.outputs.findIndex(({ fault }) => fault !== undefined);
    if (at >= 0) {
      throw new Error(`${nameOfPeer(context, at)} failed at the end of an evaluation: ${ended.outputs[at].fault}`);
    }
  } catch (error) {
    await undoEvaluation(context, marks, error);
    throw error;
  }
  const { outputs, wallMs } = ended;
  expectUsable(context);
  const intervals = await intervalsOf(context, program, false);
  ranks.forEach(({ device }) => device.pool.endStep());
  const [first, ...axes] = shapes[shapes.length - 1];
  const read = inOneList(outputs.flatMap((each) => each.outputs ?? []));
  return {
    loss: outputs[0].verdict.losses / targets,
    targets,
    ...(read ? { outputs: read } : {}),
    outputShape: [first * program.microbatches * replicasOf(context), ...axes],
    wallMs,
    ...(intervals ? { intervals } : {}),
    peaks: outputs.map(({ peak }) => peak),
    ...(timeline ? { timeline: outputs.map((each) => each.timeline!) } : {}),
  };
}

/** The outputs of all replicas, one after another; nothing where none were read. */
function inOneList(parts: readonly Float32Array[]): Float32Array | undefined {
  if (parts.length < 2) return parts[0];
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
