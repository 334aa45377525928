/** One action of a schedule: what it receives, records and sends. */
import { alignment } from "../gpu/device.ts";
import { lossBackward, lossForward } from "../layers/cross_entropy.ts";
import { backwardInput, backwardWeight, forward } from "../layers/run.ts";
import { createGroup, createSaved, type Group, releaseGroup, type Saved, slotIn } from "../layers/saved.ts";
import { B, F, inputOf, isMessage, outputOf, W } from "../schedules/program.ts";
import type { Action } from "../schedules/schedule.ts";
import { empty, fromArray, release, retain, type Tensor, view, writeArray } from "../tensor.ts";
import { type Batch, microbatchOf } from "../train/data.ts";
import { recordPass } from "./pass.ts";
import type { Run } from "./run.ts";
import { RankError } from "./transport.ts";

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
  const input = inputOf(program, node), output = outputOf(program, node);
  const { arriving, leaving } = recordPass(
    rank,
    node - program.first[rank.number],
    () => prepare(run, node, input, output),
  );
  const post = leaving && passOn(run, output, leaving);
  const losses = run.forwards === program.microbatches && !run.lossSum ? device.startRead(run.losses!) : undefined;
  const commands = device.finish();
  if (arriving) await rank.transport.receive(program.rank[program.from[input]], input, arriving);
  device.submit(commands);
  release(arriving);
  post?.();
  if (losses) {
    run.lossSum = sumOfLosses(run, losses());
    run.lossSum.catch(() => {}); // the rank may fail before it asks for it
  }
}

function prepare(run: Run, node: number, input: number, output: number): Prepared {
  const { kind } = run.program;
  if (kind[node] === F) return prepareForward(run, node, input, output);
  if (kind[node] === W) return { record: () => recordBackwardWeight(run, node) };
  return prepareBackward(run, node, input, output);
}

function prepareForward(run: Run, node: number, input: number, output: number): Prepared {
  const { program, batch, rank: { device, stages, dtype }, shapes } = run;
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
      },
    };
  }
  const wanted = fromArray(device, [targets.length], targets, "activations");
  const logits = empty(device, shapes[stage + 1], "activations", dtype);
  const loss = view(run.losses!, [1], microbatch * alignment);
  return {
    arriving: awaited(run, input, x),
    record() {
      forward(layer, logits, x, saved);
      lossForward(loss, logits, wanted, saved.child("loss"));
      release(x, wanted, logits, loss);
      run.forwards++;
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
      if (input < 0) lossBackward(dy, rank.lossGradient!, saved.child("loss"));
      backwardInput(layer, dx, dy, saved);
      release(dy);
      // The gradient leaves after the whole backward: sent any earlier, the baseline would be 2BP already.
      if (program.kind[node] === B) recordBackwardWeight(run, node);
    },
  };
}

/** Another reference to an action's input, if that comes as a message. */
function awaited({ program }: Run, edge: number, tensor: Tensor): Tensor | undefined {
  return edge >= 0 && isMessage(program, edge) ? retain(tensor) : undefined;
}

/** Records the weight gradient of all the action's micro-batches, and ends their stay. */
function recordBackwardWeight(run: Run, node: number): void {
  const { program, rank } = run;
  const stage = program.stage[node];
  const { microbatches } = actionAt(run, node);
  const saved = microbatches.map((microbatch) => savedOf(run, stage, microbatch));
  backwardWeight(rank.stages.get(stage)!.layer, saved);
  for (const [at, microbatch] of microbatches.entries()) {
    saved[at].clear();
    run.saved.delete(cellOf(run, stage, microbatch));
  }
  releaseGroup(run.groups.get(node)!);
  run.groups.delete(node);
}

const cellOf = ({ program }: Run, stage: number, microbatch: number) => stage * program.microbatches + microbatch;

function actionAt({ program: { schedule, rank, first } }: Run, node: number): Action {
  return schedule.actions[rank[node]][node - first[rank[node]]];
}

function groupOf(run: Run, stage: number, microbatch: number): Group {
  const { program, rank } = run;
  const end = program.group[cellOf(run, stage, microbatch)];
  let group = run.groups.get(end);
  if (!group) {
    const { microbatches, kind } = actionAt(run, end);
    run.groups.set(end, group = createGroup(rank.stages.get(stage)!, microbatches.length, kind === "W"));
  }
  return group;
}

function savedOf(run: Run, stage: number, microbatch: number): Saved {
  const cell = cellOf(run, stage, microbatch);
  let saved = run.saved.get(cell);
  if (!saved) {
    const group = groupOf(run, stage, microbatch);
    saved = createSaved(group, run.program.slot[cell], uploadSides(run, stage, microbatch));
    run.saved.set(cell, saved);
  }
  return saved;
}

/** Uploads the side inputs that the stage's layers ask for. */
function uploadSides({ batch, program, rank }: Run, stage: number, microbatch: number): Map<string, Tensor> {
  const { samples, lengths, seed = 0, inputs } = microbatchOf(batch, microbatch, program.microbatches);
  return new Map(
    rank.stages.get(stage)!.layer.reads.sides?.map((name) => {
      const data = name === "seed"
        ? Uint32Array.of(seed, microbatch * samples)
        : lengths ?? new Uint32Array(samples).fill(inputs.length / samples);
      return [name, fromArray(rank.device, [data.length], data, "activations")];
    }),
  );
}

/** The first stage's input, in a slot where W will read it. */
function uploadInput(run: Run, node: number, inputs: Batch["inputs"]): Tensor {
  const { program, shapes, rank: { model, device, stages, dtype } } = run;
  const stage = program.stage[node];
  const data = model.packInputs(inputs);
  if (!stages.get(stage)!.layer.reads.input) {
    return fromArray(device, shapes[stage], data, "activations", data instanceof Uint32Array ? "u32" : dtype);
  }
  const x = incoming(run, node);
  writeArray(x, data);
  return x;
}

/** Memory for what an action is given: an F's input or an I's output gradient, in a slot where W will read it. */
function incoming(run: Run, node: number): Tensor {
  const { program, shapes, rank: { device, stages, dtype } } = run;
  const stage = program.stage[node];
  const { layer } = stages.get(stage)!;
  const [name, kept, category, shape] = program.kind[node] === F
    ? ["x", layer.reads.input, "activations", shapes[stage]] as const
    : ["dy", layer.reads.gradient, "derivatives", shapes[stage + 1]] as const;
  if (!kept) return empty(device, shape, category, dtype);
  const { group, index } = savedOf(run, stage, program.microbatch[node]);
  return slotIn(group, index, name, shape, category, dtype);
}

/** Memory for what passes along an edge: the receiver's own if that is on the same rank. */
function outgoing(run: Run, edge: number): Tensor {
  const { program, shapes, rank: { device, dtype } } = run;
  if (!isMessage(program, edge)) return incoming(run, program.to[edge]);
  const from = program.from[edge], stage = program.stage[from];
  return program.kind[from] === F
    ? empty(device, shapes[stage + 1], "activations", dtype)
    : empty(device, shapes[stage], "derivatives", dtype);
}

/** Passes a tensor on and gives up the reference to it; what it returns is to be called after the submission. */
function passOn({ program, rank, handed }: Run, edge: number, tensor: Tensor): (() => void) | undefined {
  if (!isMessage(program, edge)) {
    handed.set(edge, tensor);
    return undefined;
  }
  const post = rank.transport.send(program.rank[program.to[edge]], edge, tensor);
  release(tensor);
  return post;
}

/** An action's input: here already if it comes from the same rank, and memory for it if it is on its way. */
function given(run: Run, edge: number): Tensor {
  const tensor = run.handed.get(edge);
  if (!tensor) return incoming(run, run.program.to[edge]);
  run.handed.delete(edge);
  return tensor;
}

/** The sum over the micro-batches. It comes while the backward goes on, and is long known when the ranks agree. */
async function sumOfLosses({ program, rank }: Run, read: Promise<ArrayBuffer>): Promise<number> {
  const losses = new Float32Array(await read);
  let sum = 0;
  for (let microbatch = 0; microbatch < program.microbatches; microbatch++) {
    const loss = losses[microbatch * alignment / 4];
    if (!Number.isFinite(loss)) {
      throw new RankError(
        `Rank ${rank.number} failed at ${program.stages - 1}F${microbatch}: the loss of the micro-batch is ${loss}`,
      );
    }
    sum += loss;
  }
  return sum;
}
