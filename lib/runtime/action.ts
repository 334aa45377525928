/** One action of a schedule: what it receives, records and sends. */
import { backwardInput, backwardWeight, forward, recompute } from "../layers/run.ts";
import { lossBackward, lossForward } from "../losses/run.ts";
import { alignment } from "../memory.ts";
import { B, F, inputOf, outputOf, type Program, R, W } from "../schedules/program.ts";
import { empty, fromArray, release, type Tensor, view } from "../tensor.ts";
import { microbatchOf } from "../train/data.ts";
import { actionAt, awaited, endStay, given, incoming, outgoing, passOn, savedOf, uploadInput } from "./in_flight.ts";
import { recordPass } from "./pass.ts";
import type { Rank, Run } from "./run.ts";
import { standStill } from "./stall.ts";
import { NotFiniteError } from "./transport.ts";
import { nameOf, peerOf } from "./world.ts";

/** An action that can be recorded: its memory is there, and what comes from the host is uploaded; see `recordPass`. */
interface Prepared {
  /** Where a message that it needs will be written: a reference of its own. */
  readonly arriving?: Tensor;
  /** What it gives to another stage. */
  readonly leaving?: Tensor;
  /** Records its kernels, and gives up its input. */
  record(): void;
}

/**
 * Records an action's kernels in one pass and submits them when its input has come. The recording is made before the wait, so that
 * the host's part of it (a millisecond or two) is over when the GPU could start.
 */
export async function runAction(run: Run, node: number): Promise<void> {
  const { program, rank } = run;
  const { device } = rank;
  if (isIdle(program, node, rank)) {
    if (program.kind[node] === W) endStay(run, node);
    return;
  }
  const input = inputOf(program, node), output = outputOf(program, node);
  const { arriving, leaving } = recordPass(
    rank,
    node - program.first[rank.number],
    () => prepare(run, node, input, output),
  );
  const post = leaving && passOn(run, output, leaving);
  const losses = run.losses && run.forwards === program.microbatches && !run.lossSum
    ? device.startRead(run.losses)
    : undefined;
  const commands = device.finish();
  if (arriving) await rank.transport.receive(peerOf(rank, program.rank[program.from[input]]), input, arriving);
  device.submit(commands);
  release(arriving);
  if (run.startedRead) {
    const read = run.startedRead();
    read.catch(() => {}); // the rank may fail before it asks for it
    run.outputsRead.set(program.microbatch[node], read);
    run.startedRead = undefined;
  }
  await standStill(run, node);
  post?.();
  if (losses) {
    run.lossSum = sumOfLosses(run, losses());
    run.lossSum.catch(() => {}); // the rank may fail before it asks for it
  }
}

/** Whether an action is the W of a stage that trains nothing, or the R of one that recomputes nothing: it is not submitted. */
export function isIdle({ kind, stage }: Program, node: number, { stages }: Pick<Rank, "stages">): boolean {
  if (kind[node] !== W && kind[node] !== R) return false;
  const { blocks, layer } = stages.get(stage[node])!;
  return kind[node] === W ? blocks.length === 0 : layer.recompute === undefined;
}

function prepare(run: Run, node: number, input: number, output: number): Prepared {
  const { kind } = run.program;
  if (kind[node] === F) return prepareForward(run, node, input, output);
  if (kind[node] === W) return { record: () => recordBackwardWeight(run, node) };
  if (kind[node] === R) return { record: () => recordRecompute(run, node) };
  return prepareBackward(run, node, input, output);
}

function prepareForward(run: Run, node: number, input: number, output: number): Prepared {
  const { program, batch, rank: { device, stages, dtype, model: { loss } }, shapes } = run;
  const stage = program.stage[node], microbatch = program.microbatch[node];
  const { layer } = stages.get(stage)!;
  const saved = savedOf(run, stage, microbatch);
  const { inputs, targets } = microbatchOf(batch, microbatch, program.microbatches);
  const x = input < 0 ? uploadInput(run, node, inputs) : given(run, input);
  if (output >= 0) {
    const y = outgoing(run, output);
    return {
      arriving: awaited(run, input, x),
      leaving: y,
      record() {
        forward(layer, y, x, saved);
        release(x);
        if (program.forwardOnly) endStay(run, node);
      },
    };
  }
  const outputShape = shapes[stage + 1];
  if (run.piece) return prepareLogits(run, node, x, awaited(run, input, x));
  const wanted = fromArray(device, loss.targets(outputShape).shape, targets, "activations");
  const outputs = empty(device, outputShape, "activations", dtype);
  const sum = view(run.losses!, [1], microbatch * alignment);
  return {
    arriving: awaited(run, input, x),
    record() {
      forward(layer, outputs, x, saved);
      lossForward(loss, sum, outputs, wanted, saved);
      if (run.outputs) run.startedRead = device.startRead(outputs);
      release(x, wanted, outputs, sum);
      run.forwards++;
      if (program.forwardOnly) endStay(run, node);
    },
  };
}

/** Prepares the last stage's F of a piece of a sequence: there are no targets, and outputs are read where they are wanted. */
function prepareLogits(run: Run, node: number, x: Tensor, arriving: Tensor | undefined): Prepared {
  const { program, piece, rank: { device, stages, dtype }, shapes } = run, stage = program.stage[node];
  const saved = savedOf(run, stage, program.microbatch[node]);
  const outputs = empty(device, shapes[stage + 1], "activations", dtype);
  return {
    arriving,
    record() {
      forward(stages.get(stage)!.layer, outputs, x, saved);
      if (piece!.wanted) run.startedRead = device.startRead(outputs);
      release(x, outputs);
      endStay(run, node);
    },
  };
}

/** Prepares an I, or the whole backward. */
function prepareBackward(run: Run, node: number, input: number, output: number): Prepared {
  const { program, rank } = run;
  const stage = program.stage[node];
  const { layer } = rank.stages.get(stage)!;
  const saved = savedOf(run, stage, program.microbatch[node]);
  const dy = input < 0 ? incoming(run, node) : given(run, input);
  const dx = output < 0 ? undefined : outgoing(run, output);
  return {
    arriving: awaited(run, input, dy),
    leaving: dx,
    record() {
      if (input < 0) lossBackward(rank.model.loss, dy, rank.lossGradient!, saved);
      backwardInput(layer, dx, dy, saved);
      release(dy);
      // The gradient leaves after the whole backward: sent any earlier, the baseline would be 2BP already.
      if (program.kind[node] === B) recordBackwardWeight(run, node);
    },
  };
}

/** Records what the I or B of the action's micro-batch would recompute first. */
function recordRecompute(run: Run, node: number): void {
  const { stage, microbatch } = run.program;
  recompute(run.rank.stages.get(stage[node])!.layer, savedOf(run, stage[node], microbatch[node]));
}

/** Records the weight gradient of all the action's micro-batches, and ends their stay. */
function recordBackwardWeight(run: Run, node: number): void {
  const stage = run.program.stage[node];
  const saved = actionAt(run, node).microbatches.map((microbatch) => savedOf(run, stage, microbatch));
  backwardWeight(run.rank.stages.get(stage)!.layer, saved);
  endStay(run, node);
}

/** The sum over the micro-batches. It comes while the backward goes on, and is long known when the ranks agree. */
async function sumOfLosses({ program, rank }: Run, read: Promise<ArrayBuffer>): Promise<number> {
  const losses = new Float32Array(await read);
  let sum = 0;
  for (let microbatch = 0; microbatch < program.microbatches; microbatch++) {
    const loss = losses[microbatch * alignment / 4];
    if (!Number.isFinite(loss)) {
      throw new NotFiniteError(
        `${nameOf(rank)} failed at ${program.stages - 1}F${microbatch}: the loss of the micro-batch is ${loss}`,
      );
    }
    sum += loss;
  }
  return sum;
}
