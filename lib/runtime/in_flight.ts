/** What micro-batches in flight hold on a rank: the memory for what comes in and goes out, and what layers keep. */
import { createGroup, type Group, releaseGroup, slotIn } from "../layers/group.ts";
import { createSaved, type Saved } from "../layers/saved.ts";
import { isRead } from "../layers/sums.ts";
import { F, isMessage } from "../schedules/program.ts";
import type { Action } from "../schedules/schedule.ts";
import { empty, fromArray, release, retain, type Tensor, writeArray } from "../tensor.ts";
import { type Batch, microbatchOf } from "../train/data.ts";
import { sideOf } from "../train/side_values.ts";
import type { Run } from "./run.ts";
import { pastOf } from "./sequence.ts";
import { peerOf } from "./world.ts";

const cellOf = ({ program }: Run, stage: number, microbatch: number) => stage * program.microbatches + microbatch;

/** The action that a node is. */
export function actionAt({ program: { schedule, rank, first } }: Run, node: number): Action {
  return schedule.actions[rank[node]][node - first[rank[node]]];
}

function groupOf(run: Run, stage: number, microbatch: number): Group {
  const { program, rank } = run;
  const end = program.group[cellOf(run, stage, microbatch)];
  let group = run.groups.get(end);
  if (!group) {
    const { microbatches, kind } = actionAt(run, end);
    const placed = rank.stages.get(stage)!;
    const samples = run.batch.samples / program.microbatches;
    const about = { delayed: kind === "W", sums: placed.sums, samples };
    run.groups.set(end, group = createGroup(placed, microbatches.length, about));
  }
  return group;
}

/** What the layers of a stage keep of a micro-batch. */
export function savedOf(run: Run, stage: number, microbatch: number): Saved {
  const cell = cellOf(run, stage, microbatch);
  let saved = run.saved.get(cell);
  if (!saved) {
    const group = groupOf(run, stage, microbatch);
    const { slot, forwardOnly } = run.program;
    saved = createSaved(group, slot[cell], uploadSides(run, stage, microbatch), {
      evaluating: forwardOnly,
      past: pastOf(run, stage),
      unread: run.piece?.wanted === false && stage === run.program.stages - 1,
    });
    run.saved.set(cell, saved);
  }
  return saved;
}

/** Ends the stay of a group of micro-batches, with the W or B that does, or in an evaluation with its F. */
export function endStay(run: Run, node: number): void {
  const stage = run.program.stage[node];
  for (const microbatch of actionAt(run, node).microbatches) {
    savedOf(run, stage, microbatch).clear();
    run.saved.delete(cellOf(run, stage, microbatch));
  }
  releaseGroup(run.groups.get(node)!);
  run.groups.delete(node);
}

/** Uploads the side inputs that the stage's layers, and on the last stage the loss, ask for. */
function uploadSides(
  { batch, firstSample, program, rank }: Run,
  stage: number,
  microbatch: number,
): Map<string, Tensor> {
  const { device, model: { takes, loss } } = rank;
  const part = microbatchOf(batch, microbatch, program.microbatches), { samples, seed = 0 } = part;
  const names = [
    ...rank.stages.get(stage)!.layer.reads.sides ?? [],
    ...stage === program.stages - 1 ? loss.sides ?? [] : [],
  ];
  return new Map([...new Set(names)].map((name) => {
    if (name === "seed") {
      return [name, fromArray(device, [2], Uint32Array.of(seed, firstSample + microbatch * samples), "activations")];
    }
    const side = takes.sides![name];
    return [name, fromArray(device, [samples, ...side.shape], sideOf(part, name, side), "activations")];
  }));
}

/** The first stage's input, in a slot where W will read it. */
export function uploadInput(run: Run, node: number, inputs: Batch["inputs"]): Tensor {
  const { program, shapes, rank: { model, device, stages, dtype } } = run;
  const stage = program.stage[node];
  const data = model.packInputs(inputs);
  if (!isRead(stages.get(stage)!.layer.reads.input, groupOf(run, stage, program.microbatch[node]).sums)) {
    return fromArray(device, shapes[stage], data, "activations", data instanceof Uint32Array ? "u32" : dtype);
  }
  const x = incoming(run, node);
  writeArray(x, data);
  return x;
}

/** Memory for what an action is given: an F's input or an I's output gradient, in a slot where W will read it. */
export function incoming(run: Run, node: number): Tensor {
  const { program, shapes, rank: { device, stages, dtype } } = run;
  const stage = program.stage[node];
  const { layer } = stages.get(stage)!;
  const [name, reading, category, shape] = program.kind[node] === F
    ? ["x", layer.reads.input, "activations", shapes[stage]] as const
    : ["dy", layer.reads.gradient, "derivatives", shapes[stage + 1]] as const;
  const { sums } = groupOf(run, stage, program.microbatch[node]);
  if (!isRead(reading, sums)) return empty(device, shape, category, dtype);
  const { group, index } = savedOf(run, stage, program.microbatch[node]);
  return slotIn(group, index, name, shape, category, dtype);
}

/** Memory for what passes along an edge: the receiver's own if that is on the same rank. */
export function outgoing(run: Run, edge: number): Tensor {
  const { program, shapes, rank: { device, dtype } } = run;
  if (!isMessage(program, edge)) return incoming(run, program.to[edge]);
  const from = program.from[edge], stage = program.stage[from];
  return program.kind[from] === F
    ? empty(device, shapes[stage + 1], "activations", dtype)
    : empty(device, shapes[stage], "derivatives", dtype);
}

/** Passes a tensor on and gives up the reference to it; what it returns is to be called after the submission. */
export function passOn({ program, rank, handed }: Run, edge: number, tensor: Tensor): (() => void) | undefined {
  if (!isMessage(program, edge)) {
    handed.set(edge, tensor);
    return undefined;
  }
  const post = rank.transport.send(peerOf(rank, program.rank[program.to[edge]]), edge, tensor);
  release(tensor);
  return post;
}

/** An action's input: here already if it comes from the same rank, and memory for it if it is on its way. */
export function given(run: Run, edge: number): Tensor {
  const tensor = run.handed.get(edge);
  if (!tensor) return incoming(run, run.program.to[edge]);
  run.handed.delete(edge);
  return tensor;
}

/** Another reference to an action's input, if that comes as a message. */
export function awaited({ program }: Run, edge: number, tensor: Tensor): Tensor | undefined {
  return edge >= 0 && isMessage(program, edge) ? retain(tensor) : undefined;
}
